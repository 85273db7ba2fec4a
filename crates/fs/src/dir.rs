//! An open directory and what can be done in it. One name at a time, never a path, never through a link.
//!
//! `Dir` and `File` are cheap to clone (a shared descriptor). Each call goes to Linux or to the simulator;
//! the match is here and nowhere else.

// The bodies dispatch to `os::OsDir` / `sim::SimDir` (and the `File` twins).
