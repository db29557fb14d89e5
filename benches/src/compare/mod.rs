//! The comparison: which cases there are, how each is measured, how it is told.
//!
//! Servers and generators are child processes ([`child`]). [`cases`] is the list, [`measure`] runs one case for several
//! servers in alternating rounds, [`counts`] has what is counted rather than timed (system calls, instructions) and [`profile`] tells
//! where, [`programs`] runs what measures for itself, [`report`] prints, [`plot`] draws, [`document`] puts the report into a page, and
//! [`check`] is the part that CI runs.

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
