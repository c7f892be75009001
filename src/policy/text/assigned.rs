//! Attributes while they are read, of a row or of the rows that follow, and the lines that gave
//! them their values.

use super::super::attributes::Attributes;
use super::super::places::{Place, Places};
use super::entry::{Context, Entry, Operator};
use super::parse::Wrong;
use std::sync::Arc;

/// `NAME = VALUE`, as a grammar has read it.
#[derive(Debug, Clone)]
pub struct Pair {
    pub line: usize,
    pub name: String,
    pub operator: Operator,
    pub words: Vec<String>,
    /// Where it is written, if that is not this line of the file of its row.
    pub from: Option<Place>,
}

impl Pair {
    /// `NAME = WORDS`.
    pub fn new(line: usize, name: &str, words: Vec<String>) -> Pair {
        Pair { line, name: name.into(), operator: Operator::Set, words, from: None }
    }

    pub fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}

#[derive(Debug, Clone, Default)]
pub struct Assigned {
    pub attributes: Attributes,
    pub places: Arc<Places>,
}

impl Assigned {
    /// Gives an attribute a value. Err: every word that is wrong.
    pub fn set(
        &mut self,
        entry: &Entry<Attributes>,
        pair: &Pair,
        file: &Arc<str>,
        context: &mut Context,
    ) -> Result<(), Vec<Wrong>> {
        let words = pair.words();
        entry.set(&mut self.attributes, pair.operator, &words, context)?;
        let place = pair.from.clone().unwrap_or_else(|| (file.clone(), pair.line));
        Places::add(&mut self.places, entry.name, pair.operator, &words, place);
        Ok(())
    }
}
