//! The schema as others see it: what is written, what is read, what is refused.
#![expect(clippy::unwrap_used, reason = "a failure in a helper of a test is a failure of the test")]

mod golden;
mod own;
mod properties;
mod rejections;
mod samples;
