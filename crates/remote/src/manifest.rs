//! Learns what a content at the far end is made of, beside one that is here.
//!
//! Owns how many nodes are asked for at a time, and when that is given up. Invariant: what the far end says is bounded
//! by what was asked for, and nothing that it says is an error here: at worst the content is fetched as a whole.

use std::io::Read as _;

use instep_chunk::manifest::{Descent, NODE_BYTES_MAX, Run, Tree};
use instep_wire::bulk::Fetch;
use instep_wire::error::LinkError;
use instep_wire::limits;
use instep_wire::link::Link;
use instep_wire::streams::FetchError;
use instep_wire::want::{Mark, Want, Wanted};

const _: () = assert!(NODE_BYTES_MAX <= limits::NODE_BYTES_MAX);

/// Nodes that are asked for before it is known whether both contents have anything in common.
const SAMPLE: usize = 16;
/// Bytes of the content of which it is known where they are when that is judged.
const JUDGED_BYTES: u64 = 16 * 1024 * 1024;
/// One part in so many has to be common.
const COMMON: u64 = 16;
/// Requests for nodes that are on their way at a time.
const REQUESTS: usize = 8;

/// Why a content cannot be put together.
pub(crate) enum Apart {
    /// It has too little in common with the base, or nobody can say what.
    Nothing,
    /// The far end does not have it.
    Missing,
    /// The link is over.
    Over(LinkError),
}

impl From<FetchError> for Apart {
    fn from(e: FetchError) -> Self {
        match e {
            FetchError::Missing => Self::Missing,
            FetchError::Link(e) => Self::Over(e),
            _ => Self::Nothing,
        }
    }
}

/// Asks for nodes; for the top one, where none are named.
pub(crate) fn ask(link: &Link, want: &Want, nodes: Vec<Mark>) -> Result<Fetch, Apart> {
    let part = Wanted::Nodes(nodes);
    let want = Want {
        part,
        ..want.clone()
    };
    link.ask(want).map_err(Apart::Over)
}

/// The content in the words of a base, where the answer for the top node is on its way.
pub(crate) fn runs(
    link: &Link,
    want: &Want,
    mut top: Fetch,
    base: &Tree,
) -> Result<Vec<Run>, Apart> {
    let unread = |_| Apart::Nothing;
    let top = read(&mut top)?;
    let [top] = &top[..] else {
        return Err(Apart::Nothing);
    };
    let mut descent = Descent::new(top, want.size, base).map_err(unread)?;
    loop {
        let (common, other) = descent.common();
        let wanted = descent.wanted();
        let is_judged = common + other >= JUDGED_BYTES || wanted.is_empty();
        if is_judged && common * COMMON < other {
            return Err(Apart::Nothing);
        }
        if wanted.is_empty() {
            return descent.finish().ok_or(Apart::Nothing);
        }
        let next = if is_judged { wanted } else { sample(&wanted) };
        for some in next.chunks(limits::NODES_MAX * REQUESTS) {
            let asked = some
                .chunks(limits::NODES_MAX)
                .map(|nodes| ask(link, want, nodes.to_vec()));
            let asked: Vec<Fetch> = asked.collect::<Result<_, _>>()?;
            for mut fetch in asked {
                descent.take(&read(&mut fetch)?).map_err(unread)?;
            }
        }
    }
}

/// Some, from everywhere.
fn sample(wanted: &[Mark]) -> Vec<Mark> {
    let step = wanted.len().div_ceil(SAMPLE).max(1);
    wanted.iter().step_by(step).copied().collect()
}

/// The nodes of an answer.
fn read(fetch: &mut Fetch) -> Result<Vec<Vec<u8>>, Apart> {
    let mut all = Vec::new();
    if let Err(e) = fetch.read_to_end(&mut all) {
        let cause = e.get_ref().and_then(|e| e.downcast_ref::<FetchError>());
        return Err(cause.map_or(Apart::Nothing, |e| e.clone().into()));
    }
    let mut nodes = Vec::new();
    let mut rest = &all[..];
    while let Some((length, others)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (node, others) = others.split_at_checked(length).ok_or(Apart::Nothing)?;
        // Nothing is what is said while the content is being read.
        if length > 0 {
            nodes.push(node.to_vec());
        }
        rest = others;
    }
    Ok(nodes)
}
