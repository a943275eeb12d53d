// Starts a page that has no figures of its own.
sortTables();
startCore();
