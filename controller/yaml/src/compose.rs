//! From events to documents: nesting, anchors and aliases, and the limits on all of them.

use crate::construct::{self, Composed};
use crate::syntax::{Events, position};
use crate::{DEPTH_MAX, EXPANDED_BYTES_MAX, Error, NODES_MAX, Node};
use libyaml_safer::{Event, EventData, ScalarStyle};
use std::collections::HashMap;

/// Every document that the events tell of.
pub(crate) fn documents(mut events: Events<'_>) -> Result<Vec<Node>, Error> {
    let mut composer = Composer::default();
    loop {
        let event = events.next()?;
        if event.data == EventData::StreamEnd {
            return Ok(composer.documents);
        }
        composer.take(event)?;
    }
}

/// How much a node holds, aliases counted as what they stand for.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    /// 1 for a scalar.
    depth: usize,
}

impl Size {
    fn scalar(text: &str) -> Self {
        Self { nodes: 1, bytes: text.len(), depth: 1 }
    }

    fn hold(&mut self, child: Self) {
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.depth = self.depth.max(child.depth + 1);
    }
}

/// A collection whose end has not been seen yet.
#[derive(Debug)]
struct Open {
    mapping: bool,
    tag: Option<String>,
    anchor: Option<String>,
    position: (usize, usize),
    children: Vec<Composed>,
    size: Size,
}

#[derive(Debug, Default)]
struct Composer {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// Complete nodes by anchor; `None` while the anchored collection is still open.
    anchors: HashMap<String, Option<(Composed, Size)>>,
    total: Size,
}

impl Composer {
    fn take(&mut self, event: Event) -> Result<(), Error> {
        let position = position(event.start_mark);
        match event.data {
            EventData::StreamStart { .. } | EventData::StreamEnd | EventData::DocumentEnd { .. } => Ok(()),
            EventData::DocumentStart { .. } => {
                self.anchors.clear();
                Ok(())
            }
            EventData::Alias { anchor } => self.alias(&anchor, position),
            EventData::Scalar { anchor, tag, value, style, .. } => {
                self.declare(anchor.as_deref(), position)?;
                let plain = style == ScalarStyle::Plain;
                let size = Size::scalar(&value);
                let composed = construct::scalar(value, plain, tag.as_deref(), position)?;
                self.complete(composed, size, anchor, position)
            }
            EventData::SequenceStart { anchor, tag, .. } => self.begin(false, tag, anchor, position),
            EventData::MappingStart { anchor, tag, .. } => self.begin(true, tag, anchor, position),
            EventData::SequenceEnd | EventData::MappingEnd => self.end(),
        }
    }

    fn begin(
        &mut self,
        mapping: bool,
        tag: Option<String>,
        anchor: Option<String>,
        position: (usize, usize),
    ) -> Result<(), Error> {
        self.declare(anchor.as_deref(), position)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(position));
        }
        let size = Size { nodes: 1, bytes: 0, depth: 1 };
        self.open.push(Open { mapping, tag, anchor, position, children: Vec::new(), size });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        // The parser balances starts and ends.
        let Some(open) = self.open.pop() else { return Ok(()) };
        let Open { mapping, tag, anchor, position, children, size } = open;
        let node = if mapping {
            construct::mapping(children, tag.as_deref(), position)?
        } else {
            construct::sequence(children, tag.as_deref(), position)?
        };
        self.complete(Composed::from(node), size, anchor, position)
    }

    fn alias(&mut self, anchor: &str, position: (usize, usize)) -> Result<(), Error> {
        let (line, column) = position;
        match self.anchors.get(anchor) {
            None => Err(Error::at(line, column, format!("the alias *{anchor} has no anchor &{anchor} before it"))),
            Some(None) => Err(Error::at(line, column, format!("the alias *{anchor} stands within its own anchor"))),
            Some(Some((composed, size))) => {
                let (composed, size) = (composed.clone(), *size);
                self.complete(composed, size, None, position)
            }
        }
    }

    /// Notes an anchor before its node is complete.
    fn declare(&mut self, anchor: Option<&str>, (line, column): (usize, usize)) -> Result<(), Error> {
        let Some(anchor) = anchor else { return Ok(()) };
        if self.anchors.insert(anchor.to_owned(), None).is_some() {
            return Err(Error::at(line, column, format!("the anchor &{anchor} is defined twice")));
        }
        Ok(())
    }

    /// Puts a complete node into the collection it stands in, or makes it the document.
    fn complete(
        &mut self,
        composed: Composed,
        size: Size,
        anchor: Option<String>,
        position: (usize, usize),
    ) -> Result<(), Error> {
        let (line, column) = position;
        if self.open.len() + size.depth > DEPTH_MAX + 1 {
            return Err(too_deep(position));
        }
        // A collection's children were counted as they came; an alias counts as all it stands for.
        let within: Size = self.open.iter().fold(size, |mut sum, open| {
            sum.hold(open.size);
            sum
        });
        if self.total.nodes.saturating_add(within.nodes) > NODES_MAX {
            let problem = format!("more than {NODES_MAX} values, aliases counted as what they stand for");
            return Err(Error::at(line, column, problem));
        }
        if self.total.bytes.saturating_add(within.bytes) > EXPANDED_BYTES_MAX {
            let problem =
                format!("more than {EXPANDED_BYTES_MAX} bytes of text, aliases counted as what they stand for");
            return Err(Error::at(line, column, problem));
        }
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, Some((composed.clone(), size)));
        }
        match self.open.last_mut() {
            Some(parent) => {
                parent.size.hold(size);
                parent.children.push(composed);
            }
            None => {
                self.total.hold(size);
                self.documents.push(composed.into_node()?);
            }
        }
        Ok(())
    }
}

fn too_deep((line, column): (usize, usize)) -> Error {
    Error::at(line, column, format!("nested more than {DEPTH_MAX} levels deep"))
}
