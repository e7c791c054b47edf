/* What Rust calls of the library: functions with plain arguments. The layout of its structures is
 * known here alone, from its own header. */

#include <stddef.h>
#include <stdint.h>

#include <intel-ipsec-mb.h>

const char *tunnel_ipsec_mb_version(void)
{
    return IMB_VERSION_STR;
}

/* A manager, or NULL: no memory, a processor that it is not faster on, or a library that does not
 * wipe what it leaves on the stack or does not check what it is given. */
void *tunnel_ipsec_mb_new(void)
{
    const uint64_t wanted = IMB_CPUFLAGS_AVX512 | IMB_FEATURE_AVX512_IFMA |
                            IMB_FEATURE_SAFE_DATA | IMB_FEATURE_SAFE_PARAM;
    IMB_MGR *manager;

    if (imb_get_version() != IMB_VERSION_NUM)
        return NULL;
    manager = alloc_mb_mgr(0);
    if (manager == NULL)
        return NULL;
    if ((manager->features & wanted) == wanted) {
        init_mb_mgr_avx512(manager);
        if (imb_get_errno(manager) == 0)
            return manager;
    }
    free_mb_mgr(manager);
    return NULL;
}

/* Encrypt or decrypt in place, and compute the tag of the ciphertext; whether that was done. */
int tunnel_ipsec_mb_crypt(void *opaque, int decrypt, const uint8_t *key, const uint8_t *nonce,
                          uint8_t *data, size_t length, uint8_t *tag)
{
    IMB_MGR *manager = opaque;
    IMB_JOB *job = IMB_GET_NEXT_JOB(manager);

    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->cipher_direction = decrypt ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
    job->chain_order = decrypt ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
    job->enc_keys = key;
    job->dec_keys = key;
    job->key_len_in_bytes = 32;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    job->src = data;
    job->dst = data;
    job->cipher_start_src_offset_in_bytes = 0;
    job->msg_len_to_cipher_in_bytes = length;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = length;
    job->u.CHACHA20_POLY1305.aad = NULL;
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
    job->auth_tag_output = tag;
    job->auth_tag_output_len_in_bytes = 16;
    job = IMB_SUBMIT_JOB(manager);
    return job != NULL && job->status == IMB_STATUS_COMPLETED;
}
