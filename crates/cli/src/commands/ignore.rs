//! `ignore`: says which rule decides about a path, and lists the rules that apply everywhere.

use std::path::{Path, PathBuf};

use instep_core::filter::{Layer, Pack, RuleProblem, RuleSource, Rules, Verdict};
use instep_core::path::RelPath;
use serde_json::json;

use super::Context;
use crate::args::{self, IgnoreCommand};
use crate::config::Defaults;
use crate::error::{Exit, Failure};
use crate::targets::holding;
use crate::ui::put::Put as _;

/// An ignore file larger than this is not one.
const FILE_MAX: u64 = 4 << 20;

/// Carries it out.
pub(crate) fn run(args: args::Ignore, context: &Context) -> Result<Exit, Failure> {
    match args.what {
        IgnoreCommand::Test { paths, gitignore } => test(&paths, gitignore, context),
        IgnoreCommand::List => {
            list(context);
            Ok(Exit::Done)
        }
    }
}

fn test(paths: &[PathBuf], gitignore: bool, context: &Context) -> Result<Exit, Failure> {
    let mut documents = Vec::new();
    for typed in paths {
        let Some((target, path)) = holding(typed)?.into_iter().next() else {
            continue;
        };
        let (rules, problems) = rules(
            &target.root.seen.path,
            &path,
            &context.config.defaults,
            gitignore,
        );
        for problem in problems {
            context.output.note(&format!("note  {problem} (E2118)"));
        }
        let is_dir = std::fs::symlink_metadata(typed).is_ok_and(|m| m.is_dir())
            || typed.as_os_str().as_encoded_bytes().ends_with(b"/");
        let rule = rules.last_match(&path, is_dir);
        let ignored = matches!(rules.verdict(&path, is_dir), Verdict::Ignored(_));
        let place = rule
            .as_ref()
            .map(|r| format!("{}:{}", r.source(), r.line()));
        if context.output.style.json {
            documents.push(
                json!({ "path": typed.display().to_string(), "ignored": ignored, "rule": place }),
            );
        } else {
            let word = if ignored { "ignored" } else { "synchronized" };
            let by = place.map_or_else(String::new, |p| format!("   by {p}"));
            context.output.line(&format!(
                "{}   {word}{by}",
                crate::quantity::shown_path(typed)
            ));
        }
    }
    if context.output.style.json {
        context.output.json("ignore-test", json!(documents));
    }
    Ok(Exit::Done)
}

/// The rules that decide about a path: packs, the master list, and the ignore files above the path.
fn rules(
    root: &Path,
    path: &RelPath,
    defaults: &Defaults,
    gitignore: bool,
) -> (Rules, Vec<RuleProblem>) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let mut builder = Rules::builder();
    for pack in defaults.packs().into_iter().filter_map(Pack::by_name) {
        builder = builder.pack(pack);
    }
    let text = defaults.master().join("\n").into_bytes();
    builder = builder.add_source(RuleSource {
        name: String::from("config"),
        layer: Layer::Config,
        base: RelPath::root(),
        text,
    });
    let mut dirs = Vec::new();
    let mut dir = path.parent();
    while let Some(at) = dir {
        dir = at.parent();
        dirs.push(at);
    }
    for base in dirs.into_iter().rev() {
        for (name, layer) in [
            (".gitignore", Layer::GitIgnore),
            (".instepignore", Layer::InstepIgnore),
        ] {
            if layer == Layer::GitIgnore && !gitignore {
                continue;
            }
            let file = root.join(OsStr::from_bytes(base.as_bytes())).join(name);
            let small =
                std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX);
            let Some(text) = small.then(|| std::fs::read(&file).ok()).flatten() else {
                continue;
            };
            let name = if base.is_root() {
                name.to_owned()
            } else {
                format!("{base}/{name}")
            };
            builder = builder.add_source(RuleSource {
                name,
                layer,
                base: base.clone(),
                text,
            });
        }
    }
    builder.build()
}

fn list(context: &Context) {
    let defaults = &context.config.defaults;
    let packs: Vec<Pack> = defaults
        .packs()
        .into_iter()
        .filter_map(Pack::by_name)
        .collect();
    if context.output.style.json {
        let packs: Vec<_> = packs
            .iter()
            .map(|p| json!({ "name": p.name(), "rules": lines(p.text()) }))
            .collect();
        context.output.json(
            "ignore-list",
            json!({ "packs": packs, "master": defaults.master() }),
        );
        return;
    }
    let mut out = String::new();
    for pack in packs {
        out.put(format_args!("@{}\n", pack.name()));
        for l in lines(pack.text()) {
            out.put(format_args!("  {l}\n"));
        }
    }
    let master = defaults.master();
    if !master.is_empty() {
        out.push_str("master list\n");
        for l in &master {
            out.put(format_args!("  {l}\n"));
        }
    }
    context.output.result(&out);
}

fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_decides_is_named_with_its_file_and_line() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(
            root.path().join(".instepignore"),
            "# build trees\ntarget/\n*.o\n",
        )
        .unwrap();
        std::fs::write(root.path().join("a/.instepignore"), "!keep.o\n").unwrap();
        std::fs::write(root.path().join("a/.gitignore"), "*.log\n").unwrap();
        let defaults = Defaults {
            ignore: Some(vec!["*.iso".into()]),
            ..Defaults::default()
        };
        let decided = |path: &str, gitignore| {
            let path = RelPath::new(path.as_bytes()).unwrap();
            let (rules, problems) = rules(root.path(), &path, &defaults, gitignore);
            assert!(problems.is_empty());
            let ignored = rules.verdict(&path, false).is_ignored();
            let rule = rules.last_match(&path, false);
            (
                ignored,
                rule.map_or_else(String::new, |r| format!("{}:{}", r.source(), r.line())),
            )
        };
        assert_eq!(decided("a/b/x.o", false), (true, ".instepignore:3".into()));
        assert_eq!(
            decided("a/b/keep.o", false),
            (false, "a/.instepignore:1".into())
        );
        assert_eq!(
            decided("target/debug/x", false),
            (true, ".instepignore:2".into())
        );
        assert_eq!(decided("a/x.log", false), (false, String::new()));
        assert_eq!(decided("a/x.log", true), (true, "a/.gitignore:1".into()));
        assert_eq!(decided("big.iso", false), (true, "config:1".into()));
    }
}
