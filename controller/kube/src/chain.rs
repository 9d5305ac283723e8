//! An error with all its causes, in one line.

/// `error` and its causes, outermost first. kube and hyper say what they were doing (`client error (Connect)`) and
/// leave why to the cause; a person needs both.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some say their cause themselves.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn every_cause_is_said_once() {
        let inner = Layer { text: "no host is called x", source: None };
        let middle = Layer { text: "dns error: no host is called x", source: Some(Box::new(inner)) };
        let outer = Layer { text: "client error (Connect)", source: Some(Box::new(middle)) };
        assert_eq!(chain(&outer), "client error (Connect): dns error: no host is called x");
    }
}
