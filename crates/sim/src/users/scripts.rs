//! What programs do in several steps: editors, archivers, build tools, version control. Anything may happen
//! between two steps.
//!
//! Owns nothing: a script is a list of steps. The orders are those that the programs were seen to use.

use instep_fs::sim::Save;
use instep_testkit::prng::Prng;

/// One step of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes a new content.
    Save(String, Save),
    /// Writes what is there with something after it.
    Append(String),
    /// Writes at one path what another has.
    Copy(String, String),
    Rename(String, String),
    Swap(String, String),
    Remove(String),
    RemoveAll(String),
    Mkdir(String),
    HardLink(String, String),
    Symlink(&'static str, String),
    Chmod(String, u32),
    /// Sets the modification time, in seconds.
    Touch(String, i64),
    /// Opens a file, writes half of a content, and the rest when it closes it, some acts later.
    Open(String, u32),
    /// As `Open`, through a mapping: the second store leaves no trace.
    Map(String, u32),
}

use Step::{
    Append, Chmod, Copy, HardLink, Map, Mkdir, Open, Remove, RemoveAll, Rename, Save as Put, Swap,
    Symlink, Touch,
};

/// What a script is about.
pub(super) struct Target<'a> {
    /// A file, or where one could be.
    pub(super) path: &'a str,
    /// Another one.
    pub(super) other: &'a str,
    /// A directory, or where one could be.
    pub(super) dir: &'a str,
}

type Script = fn(&Target<'_>, &mut Prng) -> Vec<Step>;

const SCRIPTS: [(&str, Script); 20] = [
    ("vim", vim),
    ("vim with backup copies", vim_copies),
    ("emacs", emacs),
    ("gedit", gedit),
    ("office", office),
    ("sed -i", sed),
    ("rsync --inplace", rsync),
    ("mapped", mapped),
    ("log", log),
    ("keeps it open", keeps_open),
    ("tar x", tar),
    ("unzip", unzip),
    ("git checkout", checkout),
    ("git rebase", rebase),
    ("rotate", rotate),
    ("rebuild", rebuild),
    ("mv and back", there_and_back),
    ("rm -r", remove_tree),
    ("ln", hard_link),
    ("swaps", swaps),
];

/// A random script.
pub(super) fn any(target: &Target<'_>, rng: &mut Prng) -> (&'static str, Vec<Step>) {
    let (name, script) = SCRIPTS[rng.below(SCRIPTS.len())];
    (name, script(target, rng))
}

/// A name beside a path.
fn beside(path: &str, before: &str, after: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/{before}{name}{after}"),
        None => format!("{before}{path}{after}"),
    }
}

fn vim(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let (path, backup) = (t.path.to_owned(), beside(t.path, "", "~"));
    let (probe, swap) = (beside(t.path, "4913", ""), beside(t.path, ".", ".swp"));
    vec![
        Put(swap.clone(), Save::InPlace),
        Put(probe.clone(), Save::InPlace),
        Remove(probe),
        Rename(path.clone(), backup.clone()),
        Put(path.clone(), Save::InPlace),
        Chmod(path, 0o644),
        Remove(backup),
        Remove(swap),
    ]
}

fn vim_copies(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let (path, backup) = (t.path.to_owned(), beside(t.path, "", "~"));
    vec![
        Copy(path.clone(), backup.clone()),
        Put(path, Save::InPlace),
        Remove(backup),
    ]
}

fn emacs(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let (path, lock) = (t.path.to_owned(), beside(t.path, ".#", ""));
    vec![
        Symlink("user@host.1", lock.clone()),
        Rename(path.clone(), beside(t.path, "", "~")),
        Put(path, Save::InPlace),
        Remove(lock),
    ]
}

fn gedit(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let (path, new) = (t.path.to_owned(), beside(t.path, ".goutputstream-", ""));
    vec![
        Put(new.clone(), Save::InPlace),
        Chmod(new.clone(), 0o664),
        Rename(new, path),
    ]
}

fn office(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let (path, new) = (t.path.to_owned(), beside(t.path, "lu", ".tmp"));
    let lock = beside(t.path, ".~lock.", "#");
    vec![
        Put(lock.clone(), Save::InPlace),
        Put(new.clone(), Save::InPlace),
        Remove(path.clone()),
        Rename(new, path),
        Remove(lock),
    ]
}

fn sed(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let each = |path: &str| {
        let new = beside(path, "sed", "");
        let put = Put(new.clone(), Save::InPlace);
        [put, Chmod(new.clone(), 0o644), Rename(new, path.to_owned())]
    };
    let mut steps = Vec::from(each(t.path));
    if rng.chance(1, 2) {
        steps.extend(each(t.other));
    }
    steps
}

fn rsync(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let path = t.path.to_owned();
    vec![
        Open(path.clone(), 1),
        Touch(path.clone(), 1_650_000_000),
        Chmod(path, 0o640),
    ]
}

fn mapped(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let path = t.path.to_owned();
    vec![
        Put(path.clone(), Save::InPlace),
        Map(path, 1 + rng.below(8) as u32),
    ]
}

fn log(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    (0..2 + rng.below(4))
        .map(|_| Append(t.path.to_owned()))
        .collect()
}

fn keeps_open(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    vec![Open(t.path.to_owned(), 5 + rng.below(20) as u32)]
}

fn tar(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let mut steps = vec![Mkdir(t.dir.to_owned())];
    for name in ["a", "b", "e"] {
        let path = format!("{}/{name}", t.dir);
        steps.push(Remove(path.clone()));
        steps.push(Put(path.clone(), Save::InPlace));
        steps.push(Touch(path, 1_600_000_000));
    }
    steps.push(Chmod(t.dir.to_owned(), 0o750));
    steps
}

fn unzip(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let mut steps = vec![Mkdir(t.dir.to_owned())];
    for name in ["a", "b"] {
        let path = format!("{}/{name}", t.dir);
        steps.push(Put(path.clone(), Save::InPlace));
        steps.push(Touch(path, 1_500_000_001));
    }
    steps
}

fn checkout(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let lock = "index.lock".to_owned();
    let mut steps = vec![Put(lock.clone(), Save::InPlace)];
    for path in [t.path, t.other, "d/a", "f/a"] {
        steps.push(Remove(path.to_owned()));
        if rng.chance(2, 3) {
            steps.push(Put(path.to_owned(), Save::InPlace));
        }
    }
    steps.push(Rename(lock, "index".to_owned()));
    steps
}

fn rebase(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let state = "h/rebase".to_owned();
    let mut steps = vec![Mkdir(state.clone())];
    steps.push(Put(format!("{state}/todo"), Save::ByRename));
    for _ in 0..2 {
        steps.extend(checkout(t, rng));
    }
    steps.push(RemoveAll(state));
    steps
}

fn rotate(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let dir = t.dir.to_owned();
    vec![
        RemoveAll("h".to_owned()),
        Rename(dir.clone(), "h".to_owned()),
        Mkdir(dir.clone()),
        Put(format!("{dir}/a"), Save::InPlace),
    ]
}

fn rebuild(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let dir = t.dir.to_owned();
    vec![
        RemoveAll(dir.clone()),
        Mkdir(dir.clone()),
        Put(format!("{dir}/b"), Save::InPlace),
    ]
}

fn there_and_back(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let (path, away) = if rng.chance(1, 2) {
        (t.path, "a.away")
    } else {
        (t.dir, "h.away")
    };
    vec![
        Rename(path.to_owned(), away.to_owned()),
        Rename(away.to_owned(), path.to_owned()),
    ]
}

/// One by one, as the program does it.
fn remove_tree(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let below = ["a", "b", "e/a", "e/b", "e", "g"].map(|name| format!("{}/{name}", t.dir));
    let mut steps: Vec<Step> = below.into_iter().map(Remove).collect();
    steps.push(RemoveAll(t.dir.to_owned()));
    steps
}

fn hard_link(t: &Target<'_>, rng: &mut Prng) -> Vec<Step> {
    let mut steps = vec![
        Remove(t.other.to_owned()),
        HardLink(t.path.to_owned(), t.other.to_owned()),
    ];
    if rng.chance(2, 3) {
        steps.push(Put(t.path.to_owned(), Save::InPlace));
    }
    steps
}

fn swaps(t: &Target<'_>, _: &mut Prng) -> Vec<Step> {
    let swap = || Swap(t.path.to_owned(), t.other.to_owned());
    vec![swap(), swap()]
}
