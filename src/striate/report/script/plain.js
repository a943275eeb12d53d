// Starts a page that has no figures of its own; such pages are in English only.
startCore("en");
