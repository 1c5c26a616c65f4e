//! The customer's library and command line: find a box, push files, know that they are safe.
