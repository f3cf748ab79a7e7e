#define _GNU_SOURCE
#include "account.h"

#include <fcntl.h>
#include <pwd.h>
#include <shadow.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool is_locked(const char *user) {
	struct spwd *sp = getspnam(user);
	const char *p = sp && sp->sp_pwdp ? sp->sp_pwdp : "";
	const char *rest = p + strspn(p, "!");
	bool is = rest > p && *rest && strcmp(rest, "*") != 0;
	if (sp && sp->sp_pwdp) {
		explicit_bzero(sp->sp_pwdp, strlen(sp->sp_pwdp));
	}
	return is;
}

/* Where pam_faillock counts failed attempts with an account, unless its dir says otherwise, and its records. */
#define tallies "/var/run/faillock/%s"
struct tally {
	char source[52];
	uint16_t reserved, status; /* bit 0: it counts */
	uint64_t time;
};

static int failed_attempts(const char *user) {
	char path[512];
	struct tally t;
	int n = 0, fd = -1;
	if (snprintf(path, sizeof path, tallies, user) < (int)sizeof path) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	}
	while (fd >= 0 && read(fd, &t, sizeof t) == sizeof t) {
		n += t.status & 1;
	}
	if (fd >= 0) {
		close(fd);
	}
	return n;
}

const char *untriable(const char *user, char *text, size_t room) {
	long today = (long)(time(NULL) / (24 * 60 * 60));
	int failed = failed_attempts(user);
	struct spwd *sp = getspnam(user);
	bool none = false;
	if (sp && sp->sp_pwdp) {
		none = !*sp->sp_pwdp || *sp->sp_pwdp == '!' || *sp->sp_pwdp == '*';
		explicit_bzero(sp->sp_pwdp, strlen(sp->sp_pwdp));
	}
	if (!getpwnam(user)) {
		snprintf(text, room, "there is no such account");
		return "missing";
	}
	if (none) {
		snprintf(text, room, "the account has no password on this host, or a locked one");
		return "locked";
	}
	if (sp && sp->sp_expire != -1 && today >= sp->sp_expire) {
		snprintf(text, room, "the account has expired");
		return "expired";
	}
	if (sp && (sp->sp_lstchg == 0 || (sp->sp_lstchg > 0 && sp->sp_max != -1 && today - sp->sp_lstchg > sp->sp_max))) {
		snprintf(text, room, "the account's password has expired and has to be changed");
		return "expired";
	}
	if (failed > 0) {
		snprintf(text, room, "%d failed attempts with the account are counted, and one more could lock it: "
			"faillock --user %s shows them, with --reset it forgets them", failed, user);
		return "locked";
	}
	return NULL;
}
