/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libtpms builds each elliptic curve anew for each operation, from its
 * parameters, with EC_GROUP_new_curve_GFp. OpenSSL gives such a group generic
 * field arithmetic, although it has fast code for the NIST curves: an ECDSA
 * P-256 signature then takes ten times as long.
 *
 * This file defines that one function. A program's own definition comes before
 * a library's in the dynamic linker's order, so libtpms calls ours. If the
 * parameters are exactly those of a NIST curve, the caller gets OpenSSL's own
 * group for it; the generator, which callers set afterwards, is the same point.
 * All else goes to OpenSSL's function.
 *
 * A curve is used this way only after both groups have given the same multiple
 * of the generator for random numbers; see curve_check.
 */

#define _GNU_SOURCE
#include "curves.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>

typedef EC_GROUP *(*constructor)(const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);

enum curve_state { UNCHECKED, TRUSTED, DISTRUSTED };

static struct curve {
    int nid;
    enum curve_state state;
    EC_GROUP *group; /* OpenSSL's own; kept for the life of the process */
} curves[] = {
    { .nid = NID_X9_62_prime256v1 },
    { .nid = NID_secp384r1 },
    { .nid = NID_secp521r1 },
};

#define CURVES (sizeof(curves) / sizeof(curves[0]))
#define CHECKS 2 /* random multiples that must agree */

static bool enabled;
static bool inside; /* OpenSSL's function may call ours: it shall get its own */

static EC_GROUP *generic(const BIGNUM *p, const BIGNUM *a, const BIGNUM *b, BN_CTX *ctx)
{
    static constructor next;
    EC_GROUP *g = NULL;

    if (!next)
        next = (constructor)dlsym(RTLD_NEXT, "EC_GROUP_new_curve_GFp");
    if (next) {
        inside = true;
        g = next(p, a, b, ctx);
        inside = false;
    }
    return g;
}

static bool same_parameters(const EC_GROUP *g, const BIGNUM *p, const BIGNUM *a,
                            const BIGNUM *b, BN_CTX *ctx)
{
    BIGNUM *gp = BN_new(), *ga = BN_new(), *gb = BN_new();
    bool same = gp && ga && gb && EC_GROUP_get_curve(g, gp, ga, gb, ctx) == 1 &&
                BN_cmp(gp, p) == 0 && BN_cmp(ga, a) == 0 && BN_cmp(gb, b) == 0;

    BN_free(gp);
    BN_free(ga);
    BN_free(gb);
    return same;
}

/* multiple writes the affine coordinates of k times g's generator to x and y. */
static bool multiple(const EC_GROUP *g, const BIGNUM *k, BIGNUM *x, BIGNUM *y, BN_CTX *ctx)
{
    EC_POINT *r = EC_POINT_new(g);
    bool ok = r && EC_POINT_mul(g, r, k, NULL, NULL, ctx) == 1 &&
              EC_POINT_get_affine_coordinates(g, r, x, y, ctx) == 1;

    EC_POINT_free(r);
    return ok;
}

/* set_generator does to g what libtpms does: it gives it from's generator. */
static bool set_generator(EC_GROUP *g, const EC_GROUP *from, BN_CTX *ctx)
{
    BIGNUM *x = BN_new(), *y = BN_new();
    EC_POINT *p = EC_POINT_new(g);
    bool ok = x && y && p &&
              EC_POINT_get_affine_coordinates(from, EC_GROUP_get0_generator(from), x, y, ctx) == 1 &&
              EC_POINT_set_affine_coordinates(g, p, x, y, ctx) == 1 &&
              EC_GROUP_set_generator(g, p, EC_GROUP_get0_order(from), EC_GROUP_get0_cofactor(from)) == 1;

    EC_POINT_free(p);
    BN_free(x);
    BN_free(y);
    return ok;
}

static bool agree(const EC_GROUP *fast, const EC_GROUP *slow, BN_CTX *ctx)
{
    BIGNUM *k = BN_new(), *x = BN_new(), *y = BN_new(), *u = BN_new(), *v = BN_new();
    bool ok = k && x && y && u && v;

    for (int i = 0; ok && i < CHECKS; i++)
        ok = BN_rand_range(k, EC_GROUP_get0_order(fast)) == 1 && !BN_is_zero(k) &&
             multiple(fast, k, x, y, ctx) && multiple(slow, k, u, v, ctx) &&
             BN_cmp(x, u) == 0 && BN_cmp(y, v) == 0;
    BN_clear_free(k);
    BN_free(x);
    BN_free(y);
    BN_free(u);
    BN_free(v);
    return ok;
}

/* curve_check compares a curve's fast group with a generic one, both with the
 * generator set as libtpms sets it. */
static enum curve_state curve_check(const EC_GROUP *group, const BIGNUM *p, const BIGNUM *a,
                                    const BIGNUM *b, BN_CTX *ctx)
{
    EC_GROUP *fast = EC_GROUP_dup(group), *slow = generic(p, a, b, ctx);
    bool ok = fast && slow && set_generator(fast, group, ctx) &&
              set_generator(slow, group, ctx) && agree(fast, slow, ctx);

    EC_GROUP_free(fast);
    EC_GROUP_free(slow);
    return ok ? TRUSTED : DISTRUSTED;
}

/* known gives the curve that has exactly these parameters, or NULL. */
static struct curve *known(const BIGNUM *p, const BIGNUM *a, const BIGNUM *b, BN_CTX *ctx)
{
    for (size_t i = 0; i < CURVES; i++) {
        struct curve *c = &curves[i];

        if (!c->group) {
            inside = true;
            c->group = EC_GROUP_new_by_curve_name(c->nid);
            inside = false;
        }
        if (c->group && same_parameters(c->group, p, a, b, ctx))
            return c;
    }
    return NULL;
}

EC_GROUP *EC_GROUP_new_curve_GFp(const BIGNUM *p, const BIGNUM *a, const BIGNUM *b, BN_CTX *ctx)
{
    struct curve *c;

    if (!enabled || inside)
        return generic(p, a, b, ctx);
    c = known(p, a, b, ctx);
    if (c && c->state == UNCHECKED)
        c->state = curve_check(c->group, p, a, b, ctx);
    if (!c || c->state != TRUSTED)
        return generic(p, a, b, ctx);
    return EC_GROUP_dup(c->group);
}

void hwvtpm_fast_curves(int on)
{
    enabled = on;
}

int hwvtpm_curve_state(int nid)
{
    for (size_t i = 0; i < CURVES; i++)
        if (curves[i].nid == nid)
            return curves[i].state;
    return -1;
}
