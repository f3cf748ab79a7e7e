/* What is known of an account without PAM. */
#include <stdbool.h>
#include <stddef.h>

/*
 * is_locked tells whether somebody locked the account's password: a "!" was put before it. PAM does not tell, for an
 * account without a password looks almost the same and may have sessions.
 */
bool is_locked(const char *user);

/*
 * untriable says why no password may be tried, as missing, locked or expired, and puts that into words; NULL: one may be.
 * An attempt with such an account can only fail, and failures are counted. It asks no module: PAM's own check of the
 * account (pam_acct_mgmt) makes some modules forget what they have counted.
 */
const char *untriable(const char *user, char *text, size_t room);
