//! What is wrong with a manifest.

use std::fmt;
use std::path::PathBuf;

use crate::objects::ObjectId;

/// One thing that is wrong, where, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the folder; empty for the folder itself.
    pub file: PathBuf,
    /// Where in the file, if it is at one place.
    pub place: Option<Place>,
    /// The object, if it is known which one.
    pub object: Option<ObjectId>,
    /// What is wrong, with the value.
    pub message: String,
    /// What is in force meanwhile, or what to do.
    pub hint: String,
}

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(place) = self.place {
                write!(f, ":{place}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        write!(f, "{} ({})", self.message, self.hint)
    }
}
