//! The comparison of the echo servers: its cases, their measurement and the report.
//!
//! Servers and generators are child processes ([`child`]). [`cases`] lists the cases. [`measure`] runs one case for several servers.
//! [`counts`] measures counted figures (system calls, instructions), and [`profile`] attributes the instructions to files and functions.
//! [`programs`] makes the parts of the report that are not cases. [`report`] formats the report, [`plot`] draws, [`document`] writes the
//! report into a page, and [`check`] is the part for CI.

pub mod cases;
pub mod check;
pub mod child;
pub mod counts;
pub mod document;
pub mod measure;
pub mod plot;
pub mod profile;
pub mod programs;
pub mod report;
