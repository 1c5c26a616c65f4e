use super::*;
use futures::TryStreamExt;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn body(bytes: &[u8]) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
    let chunks: Vec<_> = bytes
        .chunks(100_000)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    futures::stream::iter(chunks)
}

async fn store(dir: &Path) -> DiskStore {
    let store = DiskStore::open(dir).await.expect("a store");
    store.bucket_make("haul", NOW).await.expect("a bucket");
    store
}

async fn put(store: &DiskStore, key: &str, bytes: &[u8]) {
    let incoming = store.receive(body(bytes), |_| ()).await.expect("received");
    store
        .put("haul", key, incoming, Attributes::default(), false, NOW)
        .await
        .expect("put");
}

async fn get(store: &DiskStore, key: &str) -> Vec<u8> {
    let head = store.head("haul", key).await.expect("a head");
    let stream = store.read(&head, 0, head.bytes).await.expect("a reader");
    let chunks: Vec<Bytes> = stream.try_collect().await.expect("read");
    chunks.concat()
}

fn blobs(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("blobs"))
        .expect("blobs")
        .map(|shard| {
            std::fs::read_dir(shard.expect("a shard").path())
                .expect("listed")
                .count()
        })
        .sum()
}

#[tokio::test]
async fn small_and_large_objects_come_back_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let large: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let first = store(dir.path()).await;
    put(&first, "small", b"hello").await;
    put(&first, "large", &large).await;
    put(&first, "empty", b"").await;
    first.close().await;

    let second = store(dir.path()).await;

    assert_eq!(get(&second, "small").await, b"hello");
    assert_eq!(get(&second, "empty").await, b"");
    assert_eq!(get(&second, "large").await, large);
}

#[tokio::test]
async fn overwriting_and_deleting_free_the_blobs() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    put(&store, "x", &vec![1; 300_000]).await;
    put(&store, "x", &vec![2; 300_000]).await;
    assert_eq!(blobs(dir.path()), 1);

    store.delete("haul", "x").await.expect("deleted");

    assert_eq!(blobs(dir.path()), 0);
    assert!(matches!(
        store.head("haul", "x").await,
        Err(DiskError::NoObject { .. })
    ));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let broken = body(&vec![7; 400_000]).chain_error();

    let refused = store.receive(broken, |_| ()).await;

    assert!(matches!(refused, Err(DiskError::Body(_))));
    assert_eq!(blobs(dir.path()), 0);
}

trait ChainError: futures::Stream<Item = Result<Bytes, std::io::Error>> + Sized {
    fn chain_error(self) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        futures::StreamExt::chain(self, futures::stream::iter([Err(error)]))
    }
}
impl<S: futures::Stream<Item = Result<Bytes, std::io::Error>>> ChainError for S {}

#[tokio::test]
async fn what_a_crash_left_over_is_swept_and_what_is_named_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(dir.path()).await;
    put(&first, "kept", &vec![3; 200_000]).await;
    std::fs::write(dir.path().join("blobs/aa/aa-left-over"), b"half").expect("written");
    first.close().await;

    let second = store(dir.path()).await;

    assert_eq!(blobs(dir.path()), 1);
    assert_eq!(get(&second, "kept").await, vec![3; 200_000]);
}

#[tokio::test]
async fn a_multipart_upload_becomes_its_parts_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let upload = store
        .upload_begin("haul", "big", Attributes::default(), NOW)
        .await
        .expect("begun");
    let mut parts = Vec::new();
    for number in [3, 1, 2, 4] {
        let length = if number == 3 { 1000 } else { 5 * 1024 * 1024 };
        let bytes = vec![u8::try_from(number).expect("small"); length];
        let incoming = store
            .receive_part(body(&bytes), |_| ())
            .await
            .expect("received");
        let part = store
            .part_put("haul", "big", &upload, number, incoming)
            .await
            .expect("put");
        parts.push((number, part.etag));
    }
    parts.sort();
    parts.pop();

    let wrong = vec![(1, "nonsense".to_owned())];
    let refused = store
        .upload_complete("haul", "big", &upload, wrong, NOW)
        .await;
    assert!(matches!(refused, Err(DiskError::NoPart { number: 1, .. })));
    store
        .upload_complete("haul", "big", &upload, parts, NOW)
        .await
        .expect("completed");

    let bytes = get(&store, "big").await;
    assert_eq!(bytes.len(), 2 * 5 * 1024 * 1024 + 1000);
    assert_eq!(
        (bytes[0], bytes[6_000_000], bytes[bytes.len() - 1]),
        (1, 2, 3)
    );
    assert_eq!(blobs(dir.path()), 3, "the part that was not named is gone");
    let head = store.head("haul", "big").await.expect("a head");
    let span = store
        .read(&head, 5 * 1024 * 1024 - 1, 2)
        .await
        .expect("a reader");
    let span: Vec<Bytes> = span.try_collect().await.expect("read");
    assert_eq!(span.concat(), [1, 2], "a range across two parts");
}

#[tokio::test]
async fn listings_page_and_group_like_s3() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    for key in ["a", "b/1", "b/2", "b0", "c/x/1", "d", "ä"] {
        put(&store, key, b"x").await;
    }

    for limit in 1..8 {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .list("haul", "", Some("/"), after, limit)
                .await
                .expect("listed");
            keys.extend(page.objects.into_iter().map(|o| o.key));
            keys.extend(page.prefixes);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        keys.sort();
        assert_eq!(keys, ["a", "b/", "b0", "c/", "d", "ä"], "limit {limit}");
    }
    let page = store
        .list("haul", "b/", None, None, 10)
        .await
        .expect("listed");
    assert_eq!(page.objects.len(), 2);
    assert!(page.next.is_none());
}

#[tokio::test]
async fn many_writers_at_once_all_succeed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let writes = (0..300).map(|i| {
        let store = store.clone();
        async move { put(&store, &format!("k{i:03}"), format!("{i}").as_bytes()).await }
    });

    futures::future::join_all(writes).await;

    let page = store
        .list("haul", "", None, None, 1000)
        .await
        .expect("listed");
    assert_eq!(page.objects.len(), 300);
    assert_eq!(get(&store, "k123").await, b"123");
}
