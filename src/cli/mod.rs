//! The sub-commands behind `main`: each has its arguments beside it, prints, and says the exit code.

pub mod capture;
pub mod dump;
pub mod printer;
pub mod send;
mod tell;
