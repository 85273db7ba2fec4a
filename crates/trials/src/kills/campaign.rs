//! Which deaths are tried, and what came of them.
//!
//! Owns the choice: for each step some hits of it, then pairs of a death and another one while the program makes good
//! what the first one left. Invariant: a step that no scene comes to is a failure, unless it is one of those that the
//! file system has no use for; and a failure names the one command that does it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use instep_replica::Step;
use instep_testkit::prng::Prng;

use super::scenes::SCENES;
use super::trial::{Kill, Outcome, Place, Played, Reached, play, try_deaths};

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Each step in every scene at its first hit, one in the middle and its last; else each step once.
    pub every_scene: bool,
    /// Deaths after which the next start dies, too.
    pub pairs: usize,
    /// Where pairs are drawn from.
    pub seed: u64,
    /// How many trials run at once.
    pub at_once: usize,
    /// After how long no more trials begin, once all scenes were played; those that are left out are counted.
    pub time: Option<Duration>,
}

/// What was tried, and what was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Processes that were killed.
    pub kills: usize,
    /// Trials: scenes that were played with one or two deaths.
    pub trials: usize,
    /// Trials for which there was no time.
    pub left_out: usize,
    /// Kills at a step to which that process did not come.
    pub missed: usize,
    /// For each step, how often scenes came to it, and how many processes died there.
    pub steps: BTreeMap<Step, (u64, usize)>,
    /// Broken promises, each with the command that does it again.
    pub broken: Vec<String>,
}

/// One trial to be done.
type Job = (usize, Vec<Kill>);

/// Carries out `job` for each of `count`, some at once, and gives what came of each in order.
fn spread<T: Send>(count: usize, at_once: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, T>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= count {
                        return;
                    }
                    let result = job(n);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(n, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
}

/// Plays every scene without a death.
fn rehearse(place: Place<'_>, at_once: usize) -> (Vec<Played>, Vec<String>) {
    let (mut played, mut broken) = (Vec::new(), Vec::new());
    for (scene, result) in SCENES
        .iter()
        .zip(spread(SCENES.len(), at_once, |n| play(&SCENES[n], place)))
    {
        match result {
            Ok(p) => played.push(p),
            Err(e) => broken.push(format!("{}: {e}", scene.name)),
        }
    }
    (played, broken)
}

/// The first hit, one in the middle, and the last.
fn some_hits(count: u64) -> BTreeSet<u64> {
    BTreeSet::from([1, count.div_ceil(2), count])
}

/// Each step in every scene that comes to it.
fn every_step_everywhere(reached: &[&Reached]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (n, steps) in reached.iter().enumerate() {
        for (step, count) in *steps {
            let hits = some_hits(*count).into_iter();
            jobs.extend(hits.map(|hit| (n, vec![Kill { step: *step, hit }])));
        }
    }
    jobs
}

/// Each step once: scenes take turns, and so do hits.
fn each_step_once(reached: &[&Reached]) -> Vec<Job> {
    let mut used = vec![0_usize; reached.len()];
    let mut jobs = Vec::new();
    for (turn, step) in Step::ALL.iter().enumerate() {
        let scenes = (0..reached.len()).filter(|n| reached[*n].contains_key(step));
        let Some(n) = scenes.min_by_key(|n| used[*n]) else {
            continue;
        };
        used[n] += 1;
        let hits: Vec<u64> = some_hits(reached[n][step]).into_iter().collect();
        let hit = hits[turn % hits.len()];
        jobs.push((n, vec![Kill { step: *step, hit }]));
    }
    jobs
}

/// The deaths to try, in order. Time may end them at any of these: what was tried until then is each step once, and then
/// a sample of all.
fn singles(reached: &[&Reached], every_scene: bool, rng: &mut Prng) -> Vec<Job> {
    let mut jobs = shuffled(each_step_once(reached), rng);
    if every_scene {
        let mut more = every_step_everywhere(reached);
        more.retain(|job| !jobs.contains(job));
        jobs.extend(shuffled(more, rng));
    }
    jobs
}

/// A death of before, and one at a step that the start after it came to.
fn pair(rng: &mut Prng, singles: &[(Job, Reached)]) -> Option<Job> {
    let ((n, kills), reached) = rng.pick(singles)?;
    // What every start does is tried rarely, what only this one does often.
    let steps: Vec<(&Step, &u64)> = reached.iter().collect();
    let (step, count) = rng.pick(&steps)?;
    let hit = 1 + rng.below(usize::try_from(**count).unwrap_or(1)) as u64;
    let second = Kill { step: **step, hit };
    Some((*n, vec![*kills.first()?, second]))
}

/// Tries what the extent says, on one file system.
pub fn run(place: Place<'_>, extent: Extent) -> Report {
    let (played, broken) = rehearse(place, extent.at_once);
    let begun = Instant::now();
    let until = extent.time.map(|time| begun + time);
    // Each scene and step alone may take all the time, and no pair would be tried.
    let alone_until = match extent.pairs {
        0 => until,
        _ => extent.time.map(|time| begun + time * 2 / 3),
    };
    let mut report = Report {
        broken,
        ..Report::default()
    };
    for p in &played {
        note(&mut report, &p.reached);
    }
    let mut rng = Prng::new(extent.seed);
    let reached: Vec<&Reached> = played.iter().map(|p| &p.reached).collect();
    let jobs = singles(&reached, extent.every_scene, &mut rng);
    let limits = (extent.at_once, alone_until);
    let singles = try_all(place, limits, &played, &jobs, &mut report);
    let draw = || pair(&mut rng, &singles);
    let pairs: Vec<Job> = std::iter::from_fn(draw).take(extent.pairs).collect();
    try_all(place, (extent.at_once, until), &played, &pairs, &mut report);
    report
}

fn shuffled(mut jobs: Vec<Job>, rng: &mut Prng) -> Vec<Job> {
    for n in (1..jobs.len()).rev() {
        jobs.swap(n, rng.below(n + 1));
    }
    jobs
}

fn note(report: &mut Report, reached: &Reached) {
    for (step, count) in reached {
        report.steps.entry(*step).or_default().0 += count;
    }
}

/// Tries all jobs; gives back those that went well, with what was reached after their deaths.
fn try_all(
    place: Place<'_>,
    (at_once, until): (usize, Option<Instant>),
    played: &[Played],
    jobs: &[Job],
    report: &mut Report,
) -> Vec<(Job, Reached)> {
    let results = spread(jobs.len(), at_once, |n| {
        if until.is_some_and(|until| Instant::now() > until) {
            return None;
        }
        let (scene, kills) = &jobs[n];
        Some(try_deaths(&played[*scene], place, kills))
    });
    let mut well = Vec::new();
    for (job, result) in jobs.iter().zip(results) {
        let Some(result) = result else {
            report.left_out += 1;
            continue;
        };
        report.trials += 1;
        match result {
            Ok(Outcome { died, reached }) => {
                for (kill, died) in job.1.iter().zip(&died) {
                    report.kills += usize::from(*died);
                    report.missed += usize::from(!*died);
                    report.steps.entry(kill.step).or_default().1 += usize::from(*died);
                }
                note(report, &reached);
                well.push((job.clone(), reached));
            }
            Err(e) => {
                let again = replay(played[job.0].scene.name, &job.1);
                report.broken.push(format!("{again}\n    {e}"));
            }
        }
    }
    well
}

/// The command that does one trial again.
fn replay(scene: &str, kills: &[Kill]) -> String {
    let kills: Vec<String> = kills.iter().map(ToString::to_string).collect();
    format!(
        "cargo xtask trials kills --only {scene} {}",
        kills.join(" ")
    )
}

/// Does one trial again: a scene, and where it dies.
pub fn only(place: Place<'_>, words: &str) -> Result<Outcome, String> {
    let mut words = words.split_whitespace();
    let name = words.next().unwrap_or_default();
    let scene = SCENES.iter().find(|s| s.name == name);
    let scene = scene.ok_or_else(|| format!("no scene is called {name}"))?;
    let kill = |word: &str| {
        let (step, hit) = word.split_once(':')?;
        let step = *Step::ALL.iter().find(|s| s.name() == step)?;
        Some(Kill {
            step,
            hit: hit.parse().ok()?,
        })
    };
    let kills: Option<Vec<Kill>> = words.map(kill).collect();
    let kills = kills.ok_or("a kill is a step and a number: exchanged:2")?;
    try_deaths(&play(scene, place)?, place, &kills)
}

impl Report {
    /// The steps to which nothing came.
    pub fn unreached(&self) -> BTreeSet<Step> {
        let is_unreached =
            |step: &&Step| self.steps.get(*step).is_none_or(|(count, _)| *count == 0);
        Step::ALL.iter().filter(is_unreached).copied().collect()
    }

    /// All of it in words, for people.
    pub fn told(&self, on: &Path) -> String {
        let mut text = format!(
            "{} kills in {} trials ({} left out) on {}, {} of {} steps reached, deaths at {}, \
             {} kills missed, {} promises broken\n",
            self.kills,
            self.trials,
            self.left_out,
            on.display(),
            Step::ALL.len() - self.unreached().len(),
            Step::ALL.len(),
            self.steps.values().filter(|(_, died)| *died > 0).count(),
            self.missed,
            self.broken.len()
        );
        for (step, (count, kills)) in &self.steps {
            // A string takes what is written to it.
            let _always = writeln!(
                text,
                "  {:<18} reached {count:>6}   killed {kills:>4}",
                step.name()
            );
        }
        for broken in &self.broken {
            let _always = writeln!(text, "BROKEN {broken}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_left_out_where_time_ends_the_trials() {
        // Every scene comes to the first steps, one scene to each of the others.
        let often = &Step::ALL[..20];
        let scenes: Vec<Reached> = Step::ALL[20..]
            .iter()
            .map(|own| often.iter().chain([own]).map(|s| (*s, 3)).collect())
            .collect();
        let reached: Vec<&Reached> = scenes.iter().collect();
        let jobs = singles(&reached, true, &mut Prng::new(1));
        let first = jobs[..Step::ALL.len()].iter();
        let steps: BTreeSet<Step> = first.map(|(_, kills)| kills[0].step).collect();
        assert_eq!(steps.len(), Step::ALL.len());
        let all: BTreeSet<&Job> = jobs.iter().collect();
        assert_eq!((jobs.len(), all.len()), (scenes.len() * 21 * 3, jobs.len()));
    }
}
