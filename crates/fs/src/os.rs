//! The Linux implementation of [`crate::dir`].
