//! Files of signatures and of public keys: the first byte says which. What is read is written back as the same bytes, and nothing
//! but the seed's own signature is one of the seed's header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_format::signature::{PublicKey, Signature};

const HEADER: &[u8] = b"the header of a bundle";

fuzz_target!(|data: &[u8]| {
    let Some((&kind, file)) = data.split_first() else { return };
    if kind & 1 == 0 {
        if let Ok(key) = PublicKey::from_pem(file) {
            let again = PublicKey::from_pem(key.to_pem().as_bytes());
            assert!(again.is_ok_and(|again| again == key));
        }
        return;
    }
    if let Ok(signature) = Signature::parse(file) {
        assert!(signature.encode().as_bytes() == file, "one spelling");
        let _ = signature.signer(HEADER);
        let _ = signature.signer(file);
    }
});
