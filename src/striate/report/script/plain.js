// Starts a page that has no figures of its own; such pages are in English only.
startCore();
document.getElementById("language").hidden = true;
