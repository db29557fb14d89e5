//! The comparison of the echo servers: its cases, their measurement and the report.
//!
//! - [`cases`]: the cases.
//! - [`child`]: servers and generators as child processes.
//! - [`measure`]: measures one case for several servers.
//! - [`counts`]: counts system calls and instructions.
//! - [`profile`]: attributes instructions to files and functions.
//! - [`programs`]: the parts of the report that are not cases.
//! - [`report`]: formats the report, and [`document`] writes it into a document.
//! - [`plot`]: draws the plot.
//! - [`check`]: the limits that CI checks.

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
