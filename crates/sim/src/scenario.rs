//! Seeds that taught something, as small files: one fact a line, and no line that means nothing.
//!
//! ```text
//! # anything
//! taught  a conflict copy is not made twice
//! seed    1234
//! without 3,7-12
//! rounds  2
//! ```
//!
//! `taught` and `seed` are needed, once. A seed means what it meant when the file was written only as long as
//! its choices stay what they are; then the file still runs, and shows something else.

use crate::mask::Mask;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// What it taught.
    pub taught: String,
    /// The seed.
    pub seed: u64,
    /// What is left out.
    pub mask: Mask,
}

impl Scenario {
    /// Reads one; says which line is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut taught, mut seed) = (None, None);
        let (mut without, mut rounds) = (None, None);
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |why: &str| format!("line {}: {why}: {line:?}", at + 1);
            let (word, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            let again = match word {
                "taught" if !value.is_empty() => taught.replace(value.to_owned()).is_some(),
                "seed" => {
                    let number = value.parse().map_err(|_| bad("not a seed"))?;
                    seed.replace(number).is_some()
                }
                "without" => {
                    let mask: Mask = value.parse().map_err(|_| bad("not a mask"))?;
                    without.replace(mask).is_some()
                }
                "rounds" => {
                    let number = value.parse().map_err(|_| bad("not a number"))?;
                    rounds.replace(number).is_some()
                }
                _ => return Err(bad("not a line of a scenario")),
            };
            if again {
                return Err(bad("said twice"));
            }
        }
        let mut mask = without.unwrap_or_default();
        mask.rounds = rounds;
        Ok(Self {
            taught: taught.ok_or("nothing says what it taught")?,
            seed: seed.ok_or("nothing says which seed")?,
            mask,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

    use super::Scenario;

    #[test]
    fn a_broken_line_of_a_scenario_is_passed_over() {
        let whole = "# head\ntaught x y\nseed 5\n\nwithout 3,7-9\nrounds 2\n";
        let read = Scenario::parse(whole).unwrap();
        assert_eq!((read.taught.as_str(), read.seed), ("x y", 5));
        assert_eq!(read.mask.arguments(), " --without 3,7-9 --rounds 2");
        for (from, to) in [
            ("seed 5", "seed five"),
            ("seed 5", ""),
            ("taught x y", "taught"),
            ("taught x y", ""),
            ("without", "with"),
            ("7-9", "9-7"),
            ("rounds 2", "rounds"),
            ("rounds 2", "seed 5"),
            ("# head", "head"),
        ] {
            let broken = whole.replace(from, to);
            assert!(Scenario::parse(&broken).is_err(), "{from} as {to}");
        }
    }
}
