use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The examples of RFC 7541, appendix C: blocks of one connection, and what its table takes after each.
#[test]
fn the_table_is_followed_as_in_the_examples() {
    let plain = [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", 57, 1),
        ("8286 84be 5808 6e6f 2d63 6163 6865", 110, 2),
        ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", 164, 3),
    ];
    let huffman = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", 57, 1),
        ("8286 84be 5886 a8eb 1064 9cbf", 110, 2),
        ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", 164, 3),
    ];
    // A table of 256 bytes, which forgets.
    let answers = [
        (
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            222,
            4,
        ),
        ("4883 640e ffc1 c0bf", 222, 4),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
             dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            215,
            3,
        ),
    ];
    for blocks in [plain, huffman, answers] {
        for step in [1, 5, 1000] {
            let mut fields = Fields::default();
            for (block, size, entries) in blocks {
                let mut found = false;
                for part in bytes(block).chunks(step) {
                    found |= fields.read(part).expect("it is a block");
                }
                assert!(found && fields.is_between_fields(), "{block}");
                assert_eq!((fields.size, fields.table.len()), (size, entries), "{block}");
                assert_eq!(fields.size, fields.table.iter().map(|entry| entry.size()).sum::<u32>());
            }
        }
    }
}

#[test]
fn a_reference_is_what_it_refers_to() {
    let mut fields = Fields::default();
    fields.read(&bytes("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d")).unwrap();
    fields.read(&bytes("5808 6e6f 2d63 6163 6865")).unwrap();
    assert_eq!(fields.read(&[0xbe]), Ok(false), "cache-control");
    assert_eq!(fields.read(&[0xbf]), Ok(true), ":authority");
    assert_eq!(fields.read(&[0x7f, 0, 1, b'x']), Ok(true), "its name alone");
    // What is remembered under such a name is one too.
    assert_eq!(fields.read(&[0xbe]), Ok(true));
    assert_eq!(fields.read(&[0xa0]), Ok(false), "cookie");
    assert_eq!(fields.read(&[0xc1]), Err(Malformed), "there is no fourth entry");
}

#[test]
fn what_is_no_block_is_refused() {
    for block in ["80", "c0", "40 ff ff ff ff ff 7f", "3f e1 20", "ff ff ff ff ff 0f", "7f 80 80 80 80 80 01"] {
        assert_eq!(Fields::default().read(&bytes(block)), Err(Malformed), "{block}");
    }
    // A field larger than the table empties it.
    let mut fields = Fields::default();
    fields.read(&bytes("4001 7801 79")).unwrap();
    assert_eq!(fields.table.len(), 1);
    fields.read(&[&bytes("4001 787f 81 3f")[..], &[b'v'; 8192]].concat()).unwrap();
    assert!(fields.table.is_empty() && fields.is_between_fields());
    fields.read(&bytes("4001 7801 79 20")).unwrap();
    assert!(fields.table.is_empty(), "its size was set to nothing");
}

proptest! {
    #[test]
    fn any_bytes_read_the_same_at_any_split(
        block in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(),
    ) {
        let (mut whole, mut split) = (Fields::default(), Fields::default());
        let (first, second) = block.split_at(at.index(block.len() + 1));
        let by_parts = split.read(first).and_then(|found| Ok(found | split.read(second)?));
        prop_assert_eq!(whole.read(&block), by_parts);
        prop_assert!(whole.size <= TABLE_MAX && whole.table.len() <= (TABLE_MAX / ENTRY_COSTS) as usize);
    }
}
