//! What comes from the LAN: packs, names, topics.

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::names::{self, Folded};
use longhaul_protocol::pack::{Decoder, Event};
use longhaul_protocol::topic::{self, Topic};

/// A pack; the first byte says how the network cuts it.
pub(crate) fn pack(bytes: &[u8]) {
    let Some((piece, stream)) = bytes.split_first() else {
        return;
    };
    let whole = entries([stream].into_iter());
    let pieces = entries(stream.chunks(usize::from(*piece).max(1)));
    assert_eq!(whole, pieces, "where the network cuts makes no difference");
    assert!(whole.1 <= stream.len());
}

/// What the entries say, how many bytes of bodies there were, and how it ended.
fn entries<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, usize, String) {
    let (mut decoder, mut entries, mut body) = (Decoder::default(), Vec::new(), 0);
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Body(bytes))) => body += bytes.len(),
                Ok(Some(Event::Entry(header))) => {
                    let _ = header.key.parse::<ObjectKey>();
                    entries.push(format!("{header:?}"));
                }
                Ok(Some(event)) => entries.push(format!("{event:?}")),
                Err(error) => return (entries, body, error.to_string()),
            }
        }
    }
    let end = decoder.finish().err().map(|error| error.to_string());
    (entries, body, end.unwrap_or_default())
}

/// Names of objects.
pub(crate) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = text.parse::<ObjectKey>();
    assert_eq!(parsed.is_ok(), names::check(text).is_ok());
    let Ok(key) = parsed else { return };
    assert_eq!(key.as_str(), text);
    let folded = Folded::of(&key);
    for other in names::lookalikes(&key) {
        assert_eq!(Folded::of(&other), folded, "{other:?} is a lookalike");
    }
    assert!(
        names::clash(&key, &key).is_none(),
        "a name is no clash with itself"
    );
}

/// Topics and filters, as a peer of the broker writes them.
pub(crate) fn topics(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(topic) = text.parse::<Topic>() else {
        return;
    };
    assert_eq!(topic.to_string(), text, "a topic is written as it was read");
    let may = topic::may_publish(&topic.box_id, text);
    let up = matches!(topic.channel, topic::Channel::Up(_));
    assert_eq!(may, up, "a box publishes upwards only");
    let _ = topic::may_subscribe(&topic.box_id, text);
}
