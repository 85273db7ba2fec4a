//! Hints that something may have changed. They may repeat, lie or be lost; if any may have been lost the
//! watcher says so once, and whoever listens looks again everywhere.
