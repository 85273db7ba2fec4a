//! One scene with its deaths, and the verdict.
//!
//! Checked while it runs: a name that is there before and after is never missing, and never has a content that nobody
//! wrote (I6). Checked after each death: everything that was somewhere still is (I1). Checked when all is in step again:
//! every content is in a tree, in a trash or in a version store (I1); trees are what they are without a death, so that
//! nothing was edited, lost in a conflict or brought back by the death (I7); nothing is left in staging; and one more run
//! touches nothing (I13).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use instep_replica::Step;
use instep_testkit::compare::compare;

use super::program::Ended;
use super::scenes::{Comes, Scene};
use super::seen::{self, Content, Tree, What, Within};
use super::stage::Stage;

/// How often a program is started until it says that all is well.
const STARTS: usize = 4;
/// How long users' changes may take to be everywhere.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a process dies: at a step, when it comes there for the so-manieth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kill {
    /// The step.
    pub step: Step,
    /// Counted from one.
    pub hit: u64,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.step.name(), self.hit)
    }
}

/// How often each step was reached.
pub type Reached = BTreeMap<Step, u64>;

/// How a scene ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    trees: Vec<Tree>,
    conflicts: usize,
    code: i32,
    are_equal: bool,
}

/// A scene that was played without a death.
#[derive(Debug)]
pub struct Played {
    /// The scene.
    pub scene: &'static Scene,
    /// The steps that its command came to.
    pub reached: Reached,
    /// How it may end.
    finals: Vec<Final>,
    /// What is there before and after, by root, and whether its content is to be looked at.
    watched: Vec<(usize, PathBuf, bool)>,
}

/// What came of a scene with deaths in it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For each kill, whether the process came there and died.
    pub died: Vec<bool>,
    /// The steps that were reached after the last death.
    pub reached: Reached,
}

/// What is done again and again: the program and a directory for roots.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The program.
    pub exe: &'a Path,
    /// On the file system that is tried.
    pub within: &'a Path,
}

fn told<T>(what: &str, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {e}"))
}

fn trees(stage: &Stage) -> Result<Vec<Tree>, String> {
    let all = stage.roots.iter().map(|root| seen::tree(root));
    told("read the trees", all.collect())
}

/// Runs the scene's command, with what users do meanwhile.
fn perform(
    scene: &Scene,
    stage: &mut Stage,
    env: &[(&'static str, String)],
) -> Result<Ended, String> {
    let args = (scene.command)(stage);
    let Some(meanwhile) = scene.meanwhile else {
        return told("run the program", stage.run(&args, env));
    };
    let env: Vec<_> = stage.env.iter().chain(env).cloned().collect();
    let mut running = told("start the program", stage.program.start(&args, &env))?;
    let deadline = Instant::now() + PATIENCE;
    let mut wait = |stage: &Stage, is_so: &dyn Fn(&Stage) -> bool| {
        while !is_so(stage) && !told("wait", running.is_over())? {
            if Instant::now() > deadline {
                return Err("users' changes do not come through".to_owned());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    wait(stage, &|s| s.at(1, "go").exists())?;
    meanwhile(stage);
    wait(stage, &|s| {
        let trees: Vec<_> = s.roots.iter().filter_map(|r| seen::tree(r).ok()).collect();
        trees.len() == s.roots.len() && trees.iter().all(|t| *t == trees[0])
    })?;
    told("stop the program", running.interrupt())?;
    told("wait for the program", running.wait())
}

/// Where the program writes down what it reaches.
fn telling(stage: &Stage) -> (PathBuf, (&'static str, String)) {
    let to = stage.program.home().join("steps");
    let text = to.to_string_lossy().into_owned();
    (to, ("INSTEP_STEPS_TO", text))
}

fn reached(from: &Path) -> Reached {
    let text = fs::read_to_string(from).unwrap_or_default();
    let mut all = Reached::new();
    for line in text.lines() {
        if let Some(step) = Step::ALL.iter().find(|s| s.name() == line) {
            *all.entry(*step).or_default() += 1;
        }
    }
    all
}

/// Runs the scene's second command until it ends with one of these codes.
fn repeat(scene: &Scene, stage: &Stage, codes: &[i32]) -> Result<i32, String> {
    let args = (scene.again)(stage);
    let mut ends = Vec::new();
    for _ in 0..STARTS {
        let ended = told("start again", stage.run(&args, &[]))?;
        match ended.code {
            Some(code) if codes.contains(&code) => return Ok(code),
            code => ends.push(format!("{code:?}\n{}", ended.said)),
        }
    }
    Err(format!(
        "started again, it never ends with {codes:?}: {}",
        ends.join("\n")
    ))
}

fn members(scene: &Scene, stage: &Stage) -> Vec<String> {
    let args = (scene.again)(stage).into_iter();
    args.filter(|a| a.starts_with('/')).collect()
}

fn conflicts(scene: &Scene, stage: &Stage) -> Result<usize, String> {
    let words = ["--json", "conflicts"].map(str::to_owned).into_iter();
    let args: Vec<String> = words.chain(members(scene, stage)).collect();
    let said = told("list conflicts", stage.run(&args, &[]))?.said;
    Ok(said.matches("\"id\":").count())
}

fn are_equal(scene: &Scene, stage: &Stage) -> bool {
    let members = members(scene, stage);
    let roots: Vec<&Path> = members.iter().map(Path::new).collect();
    compare(&roots).is_empty()
}

/// How things are when all is in step, once it was verified that they stay so.
fn at_rest(scene: &Scene, stage: &Stage, code: i32) -> Result<Final, String> {
    let audits = |stage: &Stage| {
        let all = stage.roots.iter().map(|root| seen::audit(root));
        told("examine the trees", all.collect::<io::Result<Vec<_>>>())
    };
    let before = audits(stage)?;
    let last = told("run once more", stage.run(&(scene.again)(stage), &[]))?;
    if last.code != Some(code) {
        return Err(format!(
            "after {code}, one more run ends with {:?}\n{}",
            last.code, last.said
        ));
    }
    for (one, other) in before.iter().zip(&audits(stage)?) {
        let paths: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
        if let Some(path) = paths.into_iter().find(|p| one.get(*p) != other.get(*p)) {
            return Err(format!(
                "one more run touched {}\n{}",
                path.display(),
                last.said
            ));
        }
    }
    for root in &stage.roots {
        let left = told("list staging", seen::staged(root))?;
        if !left.is_empty() {
            return Err(format!("left in staging: {left:?}"));
        }
    }
    Ok(Final {
        trees: trees(stage)?,
        conflicts: conflicts(scene, stage)?,
        code,
        are_equal: are_equal(scene, stage),
    })
}

/// The codes with which a command may say that nothing went wrong.
const FINE: [i32; 4] = [0, 4, 5, 130];

/// Plays a scene without a death.
pub fn play(scene: &'static Scene, place: Place<'_>) -> Result<Played, String> {
    let stage = &mut told(
        "make roots",
        Stage::new(place.exe, place.within, scene.roots),
    )?;
    (scene.before)(stage);
    let before = trees(stage)?;
    let (told_to, tell) = telling(stage);
    let ended = perform(scene, stage, &[tell])?;
    let reached = reached(&told_to);
    if !ended.code.is_some_and(|c| FINE.contains(&c)) {
        return Err(format!(
            "without a death it ends with {:?}\n{}",
            ended.code, ended.said
        ));
    }
    let code = repeat(scene, stage, &FINE)?;
    let mut finals = vec![at_rest(scene, stage, code)?];
    foreign(stage)?;
    if scene.comes != Comes::Through {
        let stage = &mut told(
            "make roots",
            Stage::new(place.exe, place.within, scene.roots),
        )?;
        (scene.before)(stage);
        let code = repeat(scene, stage, &FINE)?;
        finals.push(at_rest(scene, stage, code)?);
    }
    let watched = watched(&before, &finals);
    Ok(Played {
        scene,
        reached,
        finals,
        watched,
    })
}

fn watched(before: &[Tree], finals: &[Final]) -> Vec<(usize, PathBuf, bool)> {
    let mut all = Vec::new();
    for (root, tree) in before.iter().enumerate() {
        for (path, was) in tree {
            let becomes: Vec<_> = finals.iter().map(|f| f.trees[root].get(path)).collect();
            let is_file = |w: &What| matches!(w, What::File(..));
            // The name of a directory is free for a moment when something else takes its place.
            let makes_room = |w: &What| matches!(was, What::Dir(_)) && !matches!(w, What::Dir(_));
            let is_copy = path.to_string_lossy().contains(".conflict-");
            if is_copy || becomes.iter().any(|w| w.is_none_or(makes_room)) {
                continue;
            }
            let are_files = is_file(was) && becomes.iter().flatten().all(|w| is_file(w));
            all.push((root, path.clone(), are_files));
        }
    }
    all
}

/// Opens what is watched in a loop, as any program may.
fn read_on(
    stop: &AtomicBool,
    watched: &[(PathBuf, bool)],
    written: &[Vec<u8>],
    wrong: &Mutex<Vec<String>>,
) {
    while !stop.load(Ordering::SeqCst) {
        for (path, is_file) in watched {
            let seen = if *is_file {
                fs::read(path).map(|bytes| written.contains(&bytes))
            } else {
                fs::symlink_metadata(path).map(|_| true)
            };
            let what = match seen {
                Ok(true) => continue,
                Ok(false) => "had a content that nobody wrote".to_owned(),
                Err(e) => e.to_string(),
            };
            if let Ok(mut wrong) = wrong.lock() {
                wrong.push(format!("a reader of {}: {what}", path.display()));
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Plays a scene in which the program dies at each of these steps in turn. `Err` is a broken promise.
pub fn try_deaths(played: &Played, place: Place<'_>, kills: &[Kill]) -> Result<Outcome, String> {
    let scene = played.scene;
    let stage = &mut told(
        "make roots",
        Stage::new(place.exe, place.within, scene.roots),
    )?;
    (scene.before)(stage);
    let result = judged(played, stage, kills);
    if result.is_err() && std::env::var_os("INSTEP_KILLS_KEEP").is_some() {
        let at = stage.keep();
        return result.map_err(|e| format!("{e}\n(kept: {})", at.display()));
    }
    result
}

fn judged(played: &Played, stage: &mut Stage, kills: &[Kill]) -> Result<Outcome, String> {
    let watched: Vec<(PathBuf, bool)> = played
        .watched
        .iter()
        .map(|(root, path, is_file)| (stage.roots[*root].join(path), *is_file))
        // How far a run came that died before differs: its workers are not in step.
        .filter(|(path, _)| fs::symlink_metadata(path).is_ok())
        .collect();
    let (stop, wrong) = (AtomicBool::new(false), Mutex::default());
    // What users write meanwhile is theirs to write in pieces.
    let written: Vec<Vec<u8>> = stage.written.values().cloned().collect();
    let is_watched = played.scene.meanwhile.is_none() && !played.scene.is_torn;
    let mut outcome = std::thread::scope(|scope| {
        if is_watched {
            scope.spawn(|| read_on(&stop, &watched, &written, &wrong));
        }
        let outcome = deaths(played, stage, kills);
        stop.store(true, Ordering::SeqCst);
        outcome
    })?;
    let wrong = wrong.into_inner().unwrap_or_default();
    if let Some(first) = wrong.first() {
        return Err(first.clone());
    }
    let (told_to, _) = telling(stage);
    outcome.reached = reached(&told_to);
    Ok(outcome)
}

fn deaths(played: &Played, stage: &mut Stage, kills: &[Kill]) -> Result<Outcome, String> {
    let scene = played.scene;
    let mut outcome = Outcome::default();
    let mut there = held(stage, scene, Within::Anywhere)?;
    for (n, kill) in kills.iter().enumerate() {
        let env = [("INSTEP_STOP_AT", kill.to_string())];
        let ended = if n == 0 {
            perform(scene, stage, &env)?
        } else {
            told("start again", stage.run(&(scene.again)(stage), &env))?
        };
        outcome.died.push(ended.code.is_none());
        if scene.meanwhile.is_some() && n == 0 {
            there.extend(held(stage, scene, Within::Trees)?);
        }
        missing(&there, stage, scene, Within::Anywhere)
            .map_err(|e| format!("after the death at {kill}: {e}"))?;
    }
    let (told_to, tell) = telling(stage);
    drop(fs::remove_file(told_to));
    let telling = std::mem::take(&mut stage.env);
    stage.env = telling.iter().cloned().chain([tell]).collect();
    let codes: Vec<i32> = played.finals.iter().map(|f| f.code).collect();
    let code = repeat(scene, stage, &codes)?;
    stage.env = telling;
    let end = at_rest(scene, stage, code)?;
    missing(&there, stage, scene, Within::Kept)?;
    foreign(stage)?;
    if is_allowed(scene.comes, &played.finals, &end) {
        return Ok(outcome);
    }
    Err(played
        .finals
        .iter()
        .map(|f| unlike(f, &end))
        .collect::<Vec<_>>()
        .join("\nor "))
}

/// Whether a scene may end so.
fn is_allowed(comes: Comes, finals: &[Final], end: &Final) -> bool {
    let [done, not] = finals else {
        return finals.contains(end);
    };
    if finals.contains(end) {
        return true;
    }
    let in_part = |root: usize, tree: &Tree| {
        let either = |path: &PathBuf| {
            let what = tree.get(path);
            what == done.trees[root].get(path) || what == not.trees[root].get(path)
        };
        let all = done.trees[root].keys().chain(not.trees[root].keys());
        all.chain(tree.keys()).all(either)
    };
    let in_part = end.are_equal && end.trees.iter().enumerate().all(|(n, t)| in_part(n, t));
    // Every difference that a decision makes is made, or the conflict is as open as it was.
    let undecided = done.trees[0]
        .iter()
        .filter(|(path, what)| end.trees[0].get(*path) != Some(what));
    match comes {
        Comes::Through | Comes::ThroughOrNot => false,
        Comes::ThroughInPart => in_part,
        Comes::ThroughInDecisions => in_part && undecided.count() <= end.conflicts,
    }
}

/// What must not be lost: everything that is in reach, but for what the command destroys.
fn held(stage: &Stage, scene: &Scene, within: Within) -> Result<BTreeSet<Content>, String> {
    let within = if scene.destroys {
        Within::Trees
    } else {
        within
    };
    told("look for contents", seen::contents(&stage.roots, within))
}

fn missing(
    there: &BTreeSet<Content>,
    stage: &Stage,
    scene: &Scene,
    within: Within,
) -> Result<(), String> {
    let now = held(stage, scene, within)?;
    // Drafts of ours may be gone; what users wrote may not.
    let lost = there
        .difference(&now)
        .filter(|c| stage.written.contains_key(*c));
    let lost: Vec<String> = lost.map(|c| name(stage, c)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!("lost: {}", lost.join(", ")))
}

/// The first bytes of a content, which are unlike those of any other.
fn name(stage: &Stage, content: &Content) -> String {
    let bytes = stage.written.get(content).map_or(&[][..], Vec::as_slice);
    String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned()
}

/// Contents that nobody wrote: none in a tree, and only the beginning of one where something is kept.
fn foreign(stage: &Stage) -> Result<(), String> {
    let in_trees = told(
        "look for contents",
        seen::contents(&stage.roots, Within::Trees),
    )?;
    if let Some(content) = in_trees.iter().find(|c| !stage.written.contains_key(*c)) {
        return Err(format!("nobody wrote {content:?}, which is in a tree"));
    }
    for root in &stage.roots {
        for file in told("list what is kept", seen::kept_files(root))? {
            let bytes = told("read what is kept", fs::read(&file))?;
            let is_begun = |whole: &Vec<u8>| whole.starts_with(&bytes);
            if !stage.written.values().any(is_begun) {
                return Err(format!("nobody wrote {}", file.display()));
            }
        }
    }
    Ok(())
}

/// How an end is unlike the one that it should be.
fn unlike(expected: &Final, end: &Final) -> String {
    let trees = expected.trees.iter().zip(&end.trees).enumerate();
    let trees = trees.filter_map(|(root, (one, other))| {
        seen::difference(one, other).map(|d| format!("root {root}, expected and found: {d}"))
    });
    let mut all: Vec<String> = trees.collect();
    if expected.conflicts != end.conflicts {
        all.push(format!(
            "{} conflicts, expected {}",
            end.conflicts, expected.conflicts
        ));
    }
    if expected.code != end.code {
        all.push(format!(
            "exit code {}, expected {}",
            end.code, expected.code
        ));
    }
    if expected.are_equal != end.are_equal {
        all.push("the roots differ from each other".to_owned());
    }
    all.join("; ")
}
