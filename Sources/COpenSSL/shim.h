#pragma once
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <openssl/pem.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/hmac.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/rsa.h>
#include <string.h>

// OpenSSL's macros and variadic functions, which Swift cannot see, as functions.

static inline int polder_ssl_ctx_min_version(SSL_CTX *c, int v) {
    return (int)SSL_CTX_set_min_proto_version(c, v);
}
static inline int polder_ssl_ctx_max_version(SSL_CTX *c, int v) {
    return (int)SSL_CTX_set_max_proto_version(c, v);
}
static inline void polder_ssl_ctx_defaults(SSL_CTX *c) {
    // Moving buffers: a retried write may come from another address. Release: an idle connection
    // keeps no 34 KiB of buffers. No tickets or cache: a resumed session would skip the check of
    // the peer against the authorities as they are now (after a reload).
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(c, 0);
}
static inline void polder_ssl_set_sni(SSL *s, const char *name) {
    SSL_set_tlsext_host_name(s, name);
}
static inline size_t polder_bio_pending(BIO *b) { return (size_t)BIO_ctrl_pending(b); }
static inline BIO *polder_bio_memory(void) {
    BIO *b = BIO_new(BIO_s_mem());
    if (b) BIO_set_mem_eof_return(b, -1);  // empty means "later", not "end"
    return b;
}
static inline long polder_bio_memory_data(BIO *b, char **data) {
    return BIO_get_mem_data(b, data);
}
static inline EVP_PKEY *polder_p256_key(void) { return EVP_EC_gen("P-256"); }
static inline EVP_PKEY *polder_curve_key(const char *name) { return EVP_EC_gen(name); }
static inline EVP_PKEY *polder_rsa_key(unsigned int bits) { return EVP_RSA_gen(bits); }
static inline EVP_PKEY *polder_ed25519_key(void) { return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"); }

static inline int polder_no_passphrase(char *buf, int size, int rwflag, void *u) {
    (void)buf; (void)size; (void)rwflag; (void)u;
    return 0;  // never ask on a terminal
}
static inline void polder_ssl_ctx_no_passphrase(SSL_CTX *c) {
    SSL_CTX_set_default_passwd_cb(c, polder_no_passphrase);
}
static inline EVP_PKEY *polder_read_key(BIO *b) {
    return PEM_read_bio_PrivateKey(b, NULL, polder_no_passphrase, NULL);
}

// Adds the revocation lists of a file, in PEM (any number) or DER (one). How many; -1: broken ones.
static inline int polder_add_revocations(X509_STORE *store, BIO *file) {
    int added = 0;
    X509_CRL *list;
    while ((list = PEM_read_bio_X509_CRL(file, NULL, polder_no_passphrase, NULL))) {
        int ok = X509_STORE_add_crl(store, list);
        X509_CRL_free(list);
        if (ok != 1) return -1;
        added++;
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) return -1;
    ERR_clear_error();
    if (added) return added;
    if (BIO_reset(file) != 0 || !(list = d2i_X509_CRL_bio(file, NULL))) return -1;
    int ok = X509_STORE_add_crl(store, list);
    X509_CRL_free(list);
    return ok == 1 ? 1 : -1;
}
// A list that has run out still says what was revoked, and an authority without a list has revoked
// nothing: as etcd takes them. What a list names is refused.
static inline int polder_judge(int ok, X509_STORE_CTX *c) {
    if (ok) return 1;
    int why = X509_STORE_CTX_get_error(c);
    if (why != X509_V_ERR_CRL_HAS_EXPIRED && why != X509_V_ERR_UNABLE_TO_GET_CRL) return 0;
    X509_STORE_CTX_set_error(c, X509_V_OK);
    return 1;
}
static inline void polder_ssl_set_verify(SSL *s, int mode) { SSL_set_verify(s, mode, polder_judge); }

// Server side of ALPN: the first of our protocols that the client offers. `list` is in wire format
// and must live as long as the context. No overlap: go on without (etcd clients of old send none).
struct polder_alpn { unsigned int length; unsigned char list[256]; };
static inline int polder_alpn_select(SSL *s, const unsigned char **out, unsigned char *out_len,
                                     const unsigned char *in, unsigned int in_len, void *arg) {
    (void)s;
    struct polder_alpn *ours = (struct polder_alpn *)arg;
    int r = SSL_select_next_proto((unsigned char **)out, out_len, ours->list, ours->length, in, in_len);
    return r == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}
static inline void polder_alpn_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long l, void *p) {
    (void)parent; (void)ad; (void)idx; (void)l; (void)p;
    OPENSSL_free(ptr);
}
// The list belongs to the context and is freed with it.
static inline int polder_ssl_ctx_set_alpn(SSL_CTX *c, int index, const unsigned char *list, unsigned int length) {
    if (length > 256) return 0;
    struct polder_alpn *a = (struct polder_alpn *)OPENSSL_zalloc(sizeof *a);
    if (!a) return 0;
    a->length = length;
    memcpy(a->list, list, length);
    if (!SSL_CTX_set_ex_data(c, index, a)) { OPENSSL_free(a); return 0; }
    SSL_CTX_set_alpn_select_cb(c, polder_alpn_select, a);
    return SSL_CTX_set_alpn_protos(c, list, length) == 0;  // 0 is success here
}
static inline int polder_alpn_index(void) {
    return SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, polder_alpn_free);
}

static inline int polder_add_extension(X509 *cert, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!e) return 0;
    int ok = X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
    return ok;
}
static inline int polder_name_count(const GENERAL_NAMES *n) { return sk_GENERAL_NAME_num(n); }
static inline void polder_names_free(GENERAL_NAMES *n) { GENERAL_NAMES_free(n); }
// Type (GEN_DNS, GEN_IPADD, others) and bytes of one subject alternative name.
static inline int polder_name_at(const GENERAL_NAMES *n, int i, const unsigned char **data, int *length) {
    const GENERAL_NAME *g = sk_GENERAL_NAME_value(n, i);
    int type = 0;
    ASN1_STRING *s = (ASN1_STRING *)GENERAL_NAME_get0_value(g, &type);
    if (type != GEN_DNS && type != GEN_IPADD) return type;
    *data = ASN1_STRING_get0_data(s);
    *length = ASN1_STRING_length(s);
    return type;
}
static inline GENERAL_NAMES *polder_subject_names(X509 *cert) {
    return (GENERAL_NAMES *)X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
}

static inline const EVP_MD *polder_sha(int bits) {
    return bits == 256 ? EVP_sha256() : bits == 384 ? EVP_sha384() : bits == 512 ? EVP_sha512() : NULL;
}
// Length of the code in `out` (64 bytes at least), or -1.
static inline int polder_hmac(int bits, const unsigned char *key, int key_length,
                              const unsigned char *message, size_t length, unsigned char *out) {
    unsigned int size = 0;
    const EVP_MD *md = polder_sha(bits);
    if (!md || !HMAC(md, key, key_length, message, length, out, &size)) return -1;
    return (int)size;
}
static inline EVP_PKEY *polder_read_public_key(BIO *b) {
    return PEM_read_bio_PUBKEY(b, NULL, polder_no_passphrase, NULL);
}
static inline int polder_signing(EVP_MD_CTX *c, EVP_PKEY *key, int bits, int pss, int verifies) {
    EVP_PKEY_CTX *p = NULL;
    // bits of 0: a scheme that hashes by itself (Ed25519).
    const EVP_MD *md = bits ? polder_sha(bits) : NULL;
    int ok = verifies ? EVP_DigestVerifyInit(c, &p, md, NULL, key) : EVP_DigestSignInit(c, &p, md, NULL, key);
    if (ok != 1) return 0;
    if (!pss) return 1;
    return EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(p, verifies ? RSA_PSS_SALTLEN_AUTO : RSA_PSS_SALTLEN_DIGEST) == 1;
}
// Length of the signature in `out`, or -1.
static inline long polder_sign(EVP_PKEY *key, int bits, int pss, const unsigned char *message, size_t length,
                               unsigned char *out, size_t size) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!c) return -1;
    size_t made = size;
    int ok = polder_signing(c, key, bits, pss, 0) && EVP_DigestSign(c, out, &made, message, length) == 1;
    EVP_MD_CTX_free(c);
    return ok ? (long)made : -1;
}
static inline int polder_verify(EVP_PKEY *key, int bits, int pss, const unsigned char *message, size_t length,
                                const unsigned char *signature, size_t size) {
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!c) return 0;
    int ok = polder_signing(c, key, bits, pss, 1) &&
             EVP_DigestVerify(c, signature, size, message, length) == 1;
    EVP_MD_CTX_free(c);
    return ok;
}
// Signatures over curves: OpenSSL's form (DER) and that of tokens (two numbers of `half` bytes).
static inline int polder_ecdsa_to_raw(const unsigned char *der, long length, unsigned char *raw, int half) {
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &der, length);
    if (!s) return 0;
    int ok = BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, half) == half &&
             BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + half, half) == half;
    ECDSA_SIG_free(s);
    return ok;
}
static inline int polder_ecdsa_from_raw(const unsigned char *raw, int half, unsigned char *der, int size) {
    ECDSA_SIG *s = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, half, NULL), *t = BN_bin2bn(raw + half, half, NULL);
    if (!s || !r || !t || !ECDSA_SIG_set0(s, r, t)) {
        BN_free(r); BN_free(t); ECDSA_SIG_free(s);
        return -1;
    }
    int length = i2d_ECDSA_SIG(s, NULL);
    if (length > 0 && length <= size) { unsigned char *to = der; length = i2d_ECDSA_SIG(s, &to); }
    else length = -1;
    ECDSA_SIG_free(s);
    return length;
}
