//! Identities: newtypes that cannot be confused with one another, each printed as lower-case hex.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Why a text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a hexadecimal identity of the right length")
    }
}

impl core::error::Error for IdError {}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return Err(IdError);
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8).ok_or(IdError);
    let mut out = [0; N];
    for (o, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *o = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The first 12 hexadecimal digits, for people.
            pub fn short(&self) -> String {
                use alloc::string::ToString as _;
                let mut s = self.to_string();
                s.truncate(12);
                s
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                parse_hex(s).map(Self)
            }
        }
    };
}

id!(
    /// One copy of the tree; outlives its location.
    ReplicaId, 16
);
id!(
    /// The set of replicas that are kept equal.
    ShareId, 16
);
id!(
    /// A replica during one unbroken stretch of its history. Owns counters; never reused.
    ActorId, 8
);
id!(
    /// BLAKE3 of a file's bytes or of a link's target; zero where there is no content.
    ContentId, 32
);

impl ContentId {
    /// Of things without content: directories.
    pub const NONE: Self = Self([0; 32]);
}

/// One event: the `counter`-th change that `actor` observed. Minted once, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who observed it.
    pub actor: ActorId,
    /// Which of its observations; starts at 1. Zero stands for what was there before all of them.
    pub counter: u64,
}

impl Dot {
    /// What was there before everything that `actor` observed: whoever knows any of that has seen it.
    pub fn before(actor: ActorId) -> Self {
        Self { actor, counter: 0 }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actor = &self.actor.0;
        write!(f, "{:02x}{:02x}:{}", actor[6], actor[7], self.counter)
    }
}

impl FromStr for Dot {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let (actor, counter) = s.split_once(':').ok_or(IdError)?;
        Ok(Self {
            actor: actor.parse()?,
            counter: counter.parse().map_err(|_| IdError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text() {
        let id = ReplicaId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        let dot = Dot {
            actor: ActorId(*b"abcdefgh"),
            counter: 9,
        };
        assert_eq!(dot.to_string().parse(), Ok(dot));
        assert_eq!("xyz".parse::<ReplicaId>(), Err(IdError));
        assert_eq!("é".repeat(16).parse::<ReplicaId>(), Err(IdError));
    }
}
