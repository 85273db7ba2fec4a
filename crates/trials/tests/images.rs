//! The images that the trials stand on.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;

use instep_testkit::needs::{Need, met};
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind};

#[test]
fn an_image_forgets_what_was_written_or_stays_mounted() {
    if !met(
        "images::an_image_forgets_what_was_written_or_stays_mounted",
        &[Need::Loop],
    ) {
        return;
    }
    for kind in Kind::ALL {
        let scratch = Scratch::new().unwrap();
        let mut image = Image::new(scratch.path(), "disk", kind, 0).unwrap();
        let file = image.at().join("kept");
        fs::write(&file, "bytes").unwrap();
        image.unmount(false).unwrap();
        assert!(!file.exists(), "{kind:?}");
        image.mount().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"bytes", "{kind:?}");
        drop(image);
        assert!(!file.exists(), "{kind:?}");
    }
}
