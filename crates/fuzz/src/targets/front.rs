//! What people and programs say to the front end, and what it shows them of others.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use instep_cli::input;
use instep_core::path::RelPath;

use crate::feed::Feed;

fn refused(code: u16) -> String {
    format!("E{code}")
}

/// The configuration file.
pub(super) fn configuration(bytes: &[u8]) -> String {
    match input::configuration(&String::from_utf8_lossy(bytes)) {
        Ok((_, packs, rules)) => {
            format!("{} packs, {} rules", packs.len().min(3), rules.len().min(3))
        }
        Err(code) => refused(code),
    }
}

/// A folder as it is typed.
pub(super) fn folder(bytes: &[u8]) -> String {
    match input::folder(OsStr::from_bytes(bytes)) {
        Ok((name, path)) => {
            if let Some(name) = &name {
                super::assert_harmless(name);
                assert!(!name.starts_with('-') && !name.contains('/'));
            } else {
                assert_eq!(path.as_os_str().as_bytes(), bytes);
            }
            format!("named {}", name.is_some())
        }
        Err(code) => refused(code),
    }
}

/// A stretch of time as it is typed.
pub(super) fn duration(bytes: &[u8]) -> String {
    match input::duration(&String::from_utf8_lossy(bytes)) {
        Ok(duration) => format!("{}", duration.as_secs().min(1)),
        Err(code) => refused(code),
    }
}

/// A whole command line, its words separated by zero bytes.
pub(super) fn arguments(bytes: &[u8]) -> String {
    let words = bytes.split(|b| *b == 0).take(64);
    let mut typed = vec![OsString::from("instep")];
    typed.extend(words.map(|w| OsString::from_vec(w.to_vec())));
    input::arguments(typed).map_or_else(refused, |()| "a command".into())
}

/// A request on the control socket.
pub(super) fn request(bytes: &[u8]) -> String {
    let read = input::request(&String::from_utf8_lossy(bytes));
    again(read, input::request)
}

/// An answer on the control socket.
pub(super) fn answer(bytes: &[u8]) -> String {
    let read = input::answer(&String::from_utf8_lossy(bytes));
    again(read, input::answer)
}

/// What machines ask of each other and tell each other before rows are told.
pub(super) fn far(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match input::asked(&text) {
        Ok(line) => again(Ok(line), input::asked),
        Err(_) => again(input::told(&text), input::told),
    }
}

/// What a hub and whoever joins it say to each other, and what both have on their disks.
pub(super) fn hub(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let readers = [input::joining, input::book, input::hubs];
    let found = readers.iter().find(|read| read(&text).is_ok());
    let read = found.copied().unwrap_or(input::hubs);
    again(read(&text), read)
}

/// Requests of other machines to begin with.
pub(super) fn far_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"ask":"look","path":"61"}"#,
        r#"{"ask":"order","order":"invite","share":null,"right":"write","uses":1,"seconds":600}"#,
        r#"{"ask":"order","order":"set","share":"team","member":"bo","right":null}"#,
        r#"{"tell":"answered","answer":"done"}"#,
        r#"{"tell":"answered","answer":"invited","code":"1-a-b-c"}"#,
        r#"{"tell":"failed","code":1069,"exit":2,"what":"a","why":"b","effect":"c","remedy":["d"]}"#,
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// What hubs read to begin with.
pub(super) fn hub_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"name":"bo@desk"}"#,
        r#"{"you":"bo","share":"team","right":"read","refused":null}"#,
        r#"{"members":{},"shares":{"team":{"id":"01010101010101010101010101010101","folder":null,"follows":["a:1"]}}}"#,
        r#"{"hub.example.org:8477":{"device":"X","you":"bo"}}"#,
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// What was read is one line, and is read as the same again.
fn again(read: Result<String, String>, parse: fn(&str) -> Result<String, String>) -> String {
    match read {
        Ok(line) => {
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(parse(&line), Ok(line.clone()));
            line.chars().take(16).collect()
        }
        Err(why) => why.chars().take(10).collect(),
    }
}

/// A code, and the key of a record, as they are typed.
pub(super) fn code(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let short = input::short_id(&text);
    let page = input::page(&text);
    format!("{}, {}", page.is_ok(), short.len().min(3))
}

/// Names and numbers of others, shown to people and to programs.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let numbers = input::quantities(feed.number(8), feed.instant());
    numbers.iter().for_each(|text| super::assert_harmless(text));
    let text = String::from_utf8_lossy(feed.rest());
    let told = input::failure(&text, &text);
    told.lines().for_each(super::assert_harmless);
    super::assert_harmless(&input::typed_path(Path::new(OsStr::from_bytes(
        text.as_bytes(),
    ))));
    let Ok(path) = RelPath::new(text.as_bytes()) else {
        return "no path".into();
    };
    let json = input::json_path(&path);
    assert!(!json.contains('\n'), "an object is one line");
    let object: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(object["path"], *text);
    format!("{}", told.lines().count().min(8))
}

/// Configurations to begin with.
pub(super) fn configuration_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "version = 1\n[defaults]\ntrash.days = 7\nignore = [\"@os-litter\", \"*.iso\"]\nsymlinks = \"safe\"\nmetadata = { owner = true, xattr = true }\n",
        "[defaults]\ntrsh.days = 3\n",
        "version = 99999999999999999999",
        "\u{feff}[defaults\n",
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Folders to begin with.
pub(super) fn folder_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 7] = [
        b"a",
        b"NAME=~/x",
        b"host:/x",
        b"-a=b",
        b"./a=b",
        b"newest=x",
        b"n=\xff:",
    ];
    texts.into_iter().map(<[u8]>::to_vec).collect()
}

/// Durations to begin with.
pub(super) fn duration_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "500ms",
        "1.5h",
        "7d",
        "99999999999999999999999w",
        "0.0s",
        ".s",
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Command lines to begin with.
pub(super) fn arguments_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "sync\0--create\0a\0b",
        "plan\0a\0b\0--json",
        "mirror\0a\0b\0-n",
        "conflicts\0resolve\0a\0--all\0--keep\0newest",
        "trash\0list\0a",
        "why\0a/b",
        "explain\0E1002",
        "sny\0--crate",
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Requests to begin with.
pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"do":"status"}"#,
        r#"{"do":"why","path":"612f62"}"#,
        r#"{"do":"resolve","id":null,"keep":"newest"}"#,
        r#"{"do":"restore","replica":1,"key":"k","to":"61"}"#,
        r#"{"do":"empty-trash","before_ns":-1}"#,
        r#"{"do":"approve","id":"x"}"#,
        r#"{"do":"stop"}"#,
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Answers to begin with.
pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"is":"done","count":1}"#,
        r#"{"is":"status","state":"problem","replicas":[{"label":"A","location":"/a","state":"paused","why":"full","notes":["x"]}],"problems":[{"replica":0,"path":"78ff","code":2110,"detail":"a socket"}],"counts":[1,2,3,4,5,6,7,8,9,10,11]}"#,
        r#"{"is":"why","lines":["a"]}"#,
        r#"{"is":"refused","code":1013,"why":"no"}"#,
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Codes and keys to begin with.
pub(super) fn code_seeds() -> Vec<Vec<u8>> {
    let texts = ["E1002", "e2110", "EEEE1", "0102030405060708:9", "é"];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}
