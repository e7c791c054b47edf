//! ChaCha20-Poly1305 of Intel's multi-buffer library (ipsec-mb), where that was there when this was
//! built, and the processor has what makes it faster than others: AVX-512 with IFMA.
//!
//! This crate has all the unsafe code that needs. The library is linked from its archive, and its
//! structures are touched only by `shim.c`, which is compiled against the header of the same
//! package: no layout is taken on trust.

/// Bytes of a key.
pub const KEY: usize = 32;
/// Bytes of a nonce.
pub const NONCE: usize = 12;
/// Bytes of a tag.
pub const TAG: usize = 16;

pub use imp::{Manager, version};

#[cfg(has_ipsec_mb)]
mod imp {
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::ptr::NonNull;

    use super::{KEY, NONCE, TAG};

    unsafe extern "C" {
        fn tunnel_ipsec_mb_version() -> *const c_char;
        fn tunnel_ipsec_mb_new() -> *mut c_void;
        fn tunnel_ipsec_mb_crypt(
            manager: *mut c_void,
            decrypt: c_int,
            key: *const u8,
            nonce: *const u8,
            data: *mut u8,
            length: usize,
            tag: *mut u8,
        ) -> c_int;
    }

    /// The version of the library that was built in.
    pub fn version() -> Option<&'static str> {
        // SAFETY: it is a literal of C.
        unsafe { CStr::from_ptr(tunnel_ipsec_mb_version()) }
            .to_str()
            .ok()
    }

    /// The state of the library.
    #[derive(Debug)]
    pub struct Manager(NonNull<c_void>);

    // SAFETY: what it points to belongs to it alone and is bound to no thread.
    unsafe impl Send for Manager {}

    impl Manager {
        /// `None` if this processor is not one for it, or if there is no memory.
        pub fn new() -> Option<Manager> {
            // SAFETY: it takes nothing, and asks the processor before it uses anything of it.
            NonNull::new(unsafe { tunnel_ipsec_mb_new() }).map(Manager)
        }

        fn crypt(
            &mut self,
            decrypt: bool,
            key: &[u8; KEY],
            nonce: &[u8; NONCE],
            data: &mut [u8],
        ) -> Option<[u8; TAG]> {
            let mut tag = [0; TAG];
            // SAFETY: the manager is of `tunnel_ipsec_mb_new`, and nobody else uses it now. The
            // arrays have the lengths that the shim takes for granted, and the slice says its own.
            // The library keeps the pointers in a job that is finished, which it never reads.
            let done = unsafe {
                tunnel_ipsec_mb_crypt(
                    self.0.as_ptr(),
                    decrypt.into(),
                    key.as_ptr(),
                    nonce.as_ptr(),
                    data.as_mut_ptr(),
                    data.len(),
                    tag.as_mut_ptr(),
                )
            };
            (done != 0).then_some(tag)
        }

        /// Encrypt in place; the tag, or `None` if the library refuses that.
        pub fn encrypt(
            &mut self,
            key: &[u8; KEY],
            nonce: &[u8; NONCE],
            data: &mut [u8],
        ) -> Option<[u8; TAG]> {
            self.crypt(false, key, nonce, data)
        }

        /// Decrypt in place, whether it is authentic or not; the tag that it should have, or `None`
        /// if the library refuses that.
        pub fn decrypt(
            &mut self,
            key: &[u8; KEY],
            nonce: &[u8; NONCE],
            data: &mut [u8],
        ) -> Option<[u8; TAG]> {
            self.crypt(true, key, nonce, data)
        }
    }
}

#[cfg(not(has_ipsec_mb))]
mod imp {
    use std::convert::Infallible;

    use super::{KEY, NONCE, TAG};

    /// None was built in.
    pub fn version() -> Option<&'static str> {
        None
    }

    /// There is none: the library was not there when this was built.
    #[derive(Debug)]
    pub struct Manager(Infallible);

    impl Manager {
        /// `None`.
        pub fn new() -> Option<Manager> {
            None
        }

        /// Is never called.
        pub fn encrypt(
            &mut self,
            _: &[u8; KEY],
            _: &[u8; NONCE],
            _: &mut [u8],
        ) -> Option<[u8; TAG]> {
            match self.0 {}
        }

        /// Is never called.
        pub fn decrypt(
            &mut self,
            _: &[u8; KEY],
            _: &[u8; NONCE],
            _: &mut [u8],
        ) -> Option<[u8; TAG]> {
            match self.0 {}
        }
    }
}
