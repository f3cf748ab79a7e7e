/*
 * batchwarden-pam asks PAM, for the launcher, which is built without a C library. It is started once for each question
 * and knows two:
 *
 *   batchwarden-pam session   may the account have a session now? Then it is opened, and stays open while it is needed
 *   batchwarden-pam verify    is the password that descriptor 3 yields the account's?
 *
 * Descriptor 0 is a stream socket. Messages on it, both ways, are a big-endian 32-bit length and that many octets:
 * fields, each ended by a NUL.
 *
 *   question  service, user, who asks, seconds that each step may take
 *   answer    "refused" why text     no; why: missing, expired, locked, denied. No password was tried
 *             "failed" text          PAM could not say, and no password was tried
 *             "right"                the password is the account's
 *             "wrong" text           it is not
 *             "unsure" text          a module was given the password, and PAM did not say either
 *             "open" (tag value)...  "env" NAME=VALUE, "umask" octal, "nice" number, "limit" number:soft:hard, of what
 *                                    the session's modules have set
 *             "closed"
 *
 * An open session ends with the octet 'c' on the socket, or with the end of the socket. The octet 'j' may come before,
 * with the pidfd of the job's first process: then the end of the socket (a launcher that was killed) ends the session
 * only when that process has ended.
 *
 * It is small, has one thread and no run-time system, because there is one for every running job that wants PAM,
 * because the session's modules set limits on it, and because a password must lie nowhere but where we wipe it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account.h"

enum { max_question = 2048, max_answer = 128 << 10, max_text = 1024, max_password = 1024, password_fd = 3 };

static char question[max_question + 1];
static char *service, *user, *asker;
static unsigned seconds;

static char answer[max_answer];
static size_t answer_len;

/* What the modules said for people. */
static char said[max_text];
static size_t said_len;

/* The password, while there is one; prompts for it are answered once. */
static char *password;

static bool all(ssize_t (*move)(int, void *, size_t), int fd, void *data, size_t n) {
	for (char *at = data; n > 0;) {
		ssize_t did = move(fd, at, n);
		if (did <= 0 && !(did < 0 && errno == EINTR)) {
			return false;
		}
		if (did > 0) {
			at += did;
			n -= (size_t)did;
		}
	}
	return true;
}

static ssize_t give(int fd, void *data, size_t n) { return send(fd, data, n, MSG_NOSIGNAL); }

static bool put(const char *field) {
	size_t n = strlen(field) + 1;
	if (n > max_answer - answer_len) {
		return false;
	}
	memcpy(answer + answer_len, field, n);
	answer_len += n;
	return true;
}

static bool reply(void) {
	uint32_t len = htonl((uint32_t)answer_len);
	return all(give, 0, &len, sizeof len) && all(give, 0, answer, answer_len);
}

/* say prepares an answer of what PAM returned and what its modules said. */
static void say(const char *what, const char *why, const char *step, pam_handle_t *pam, int result) {
	char text[max_text + 256];
	said[said_len] = 0;
	snprintf(text, sizeof text, "%s: %s%s%s", step, pam_strerror(pam, result), said_len ? ": " : "", said);
	answer_len = 0;
	put(what);
	if (why) {
		put(why);
	}
	put(text);
}

static void fail(const char *text) {
	answer_len = 0;
	put("failed");
	put(text);
}

/* no sorts what PAM returned: NULL means that it could not say. */
static const char *no(int result) {
	switch (result) {
	case PAM_USER_UNKNOWN:
		return "missing";
	case PAM_ACCT_EXPIRED:
	case PAM_NEW_AUTHTOK_REQD:
	case PAM_AUTHTOK_EXPIRED:
	case PAM_CRED_EXPIRED:
		return "expired";
	case PAM_MAXTRIES:
		return "locked";
	case PAM_PERM_DENIED:
	case PAM_AUTH_ERR:
	case PAM_CRED_INSUFFICIENT:
		return "denied";
	}
	return NULL;
}

static void refuse(const char *step, pam_handle_t *pam, int result) {
	const char *why = no(result);
	say(why ? "refused" : "failed", why, step, pam, result);
}

static void free_responses(struct pam_response *r, int n) {
	for (int i = 0; r && i < n; i++) {
		if (r[i].resp) {
			explicit_bzero(r[i].resp, strlen(r[i].resp));
			free(r[i].resp);
		}
	}
	free(r);
}

/* converse keeps what modules tell, and answers nothing but the first prompt for the password. */
static int converse(int n, const struct pam_message **messages, struct pam_response **responses, void *unused) {
	(void)unused;
	if (n <= 0 || n > PAM_MAX_NUM_MSG) {
		return PAM_CONV_ERR;
	}
	struct pam_response *r = calloc((size_t)n, sizeof *r);
	if (!r) {
		return PAM_BUF_ERR;
	}
	for (int i = 0; i < n; i++) {
		switch (messages[i]->msg_style) {
		case PAM_TEXT_INFO:
		case PAM_ERROR_MSG:
			if (said_len > 0 && said_len < max_text - 2) {
				said[said_len++] = ' ';
			}
			for (const char *c = messages[i]->msg; c && *c && said_len < max_text - 1; c++) {
				said[said_len++] = iscntrl((unsigned char)*c) ? ' ' : *c;
			}
			continue;
		case PAM_PROMPT_ECHO_OFF:
			if (password && (r[i].resp = strdup(password))) { /* whoever asked wipes it */
				explicit_bzero(password, max_password);
				password = NULL;
				continue;
			}
		}
		free_responses(r, n);
		return PAM_CONV_ERR; /* nobody is there to ask */
	}
	*responses = r;
	return PAM_SUCCESS;
}

static const struct pam_conv conversation = {converse, NULL};

static bool read_question(void) {
	uint32_t len;
	if (!all(read, 0, &len, sizeof len) || (len = ntohl(len)) > max_question || !all(read, 0, question, len)) {
		return false;
	}
	char *fields[4], *at = question;
	for (int i = 0; i < 4; i++) {
		char *end = memchr(at, 0, (size_t)(question + len - at));
		if (!end) {
			return false;
		}
		fields[i] = at;
		at = end + 1;
	}
	service = fields[0], user = fields[1], asker = fields[2];
	seconds = (unsigned)strtoul(fields[3], NULL, 10);
	return at == question + len && seconds > 0;
}

static void bar(const char *why, const char *text) {
	answer_len = 0;
	put("refused");
	put(why);
	put(text);
}

static pam_handle_t *begin(void) {
	pam_handle_t *pam = NULL;
	int result = pam_start(service, user, &conversation, &pam);
	if (result == PAM_SUCCESS) {
		result = pam_set_item(pam, PAM_TTY, "batchwarden"); /* some modules want one, as from cron */
	}
	if (result == PAM_SUCCESS && *asker) {
		result = pam_set_item(pam, PAM_RUSER, asker);
	}
	if (result != PAM_SUCCESS) {
		say("failed", NULL, "start", pam, result);
		return NULL;
	}
	if (is_locked(user)) {
		bar("locked", "the account's password is locked");
		pam_end(pam, PAM_AUTH_ERR);
		return NULL;
	}
	return pam;
}

/* What a session's modules change of this process and the job is to have, too. */
struct surroundings {
	struct rlimit limits[RLIM_NLIMITS];
	mode_t umask;
	int nice;
	struct stat mounts;
};

static void look_around(struct surroundings *s) {
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		getrlimit(i, &s->limits[i]);
	}
	umask(s->umask = umask(077));
	s->nice = getpriority(PRIO_PROCESS, 0);
	if (stat("/proc/self/ns/mnt", &s->mounts) != 0) {
		s->mounts.st_ino = 0;
	}
}

/* put_session tells what the job is to have; NULL or what cannot be had. */
static const char *put_session(pam_handle_t *pam, const struct surroundings *before) {
	struct surroundings now;
	char text[128];
	bool fits = put("open");
	look_around(&now);
	if (now.mounts.st_ino != before->mounts.st_ino) {
		return "a module made a mount namespace, which a job cannot be brought into";
	}
	if (now.umask != before->umask) {
		snprintf(text, sizeof text, "%o", (unsigned)now.umask);
		fits = put("umask") && put(text) && fits;
	}
	if (now.nice != before->nice) {
		snprintf(text, sizeof text, "%d", now.nice);
		fits = put("nice") && put(text) && fits;
	}
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		const struct rlimit *a = &before->limits[i], *b = &now.limits[i];
		if (a->rlim_cur != b->rlim_cur || a->rlim_max != b->rlim_max) {
			snprintf(text, sizeof text, "%d:%llu:%llu", i, (unsigned long long)b->rlim_cur, (unsigned long long)b->rlim_max);
			fits = put("limit") && put(text) && fits;
			setrlimit(i, a); /* the job's, not ours: the end of the session needs files and processes, too */
		}
	}
	char **env = pam_getenvlist(pam);
	for (char **e = env; e && *e; e++) {
		fits = put("env") && put(*e) && fits;
		free(*e);
	}
	free(env);
	return fits ? NULL : "its environment is too large";
}

static volatile sig_atomic_t stopped;

static void on_stop(int sig) { stopped = sig; }

/* take receives one octet, and the pidfd that comes with it. */
static ssize_t take(char *octet, int *pidfd) {
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec io = {octet, 1};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)) && *pidfd < 0) {
		memcpy(pidfd, CMSG_DATA(c), sizeof(int));
	}
	return n;
}

/* keep returns when the session is no longer needed. */
static void keep(void) {
	sigset_t blocked, open;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &open);
	struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	while (!stopped) {
		if (ppoll(wait, 2, NULL, &open) < 0) {
			continue; /* a signal */
		}
		if (wait[1].revents && wait[0].fd < 0) {
			break; /* the job has ended, and the launcher before it */
		}
		if (wait[0].fd < 0 || !wait[0].revents) {
			if (wait[1].revents) {
				wait[1].fd = -1; /* the launcher says when: it looks for what the job left behind */
				wait[1].events = 0;
			}
			continue;
		}
		char octet = 0;
		ssize_t n = take(&octet, &wait[1].fd);
		if (octet == 'c') {
			break;
		}
		if (n == 0 || (n < 0 && errno != EINTR)) {
			if (wait[1].fd < 0) {
				break;
			}
			wait[0].fd = -1;
		}
	}
	sigprocmask(SIG_SETMASK, &open, NULL);
	signal(SIGTERM, SIG_IGN); /* the end of the session is not interrupted */
}

static void session(void) {
	struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
	struct surroundings before;
	sigaction(SIGTERM, &stop, NULL); /* the machine goes down: what was opened is ended */
	look_around(&before);
	pam_handle_t *pam = begin();
	if (!pam) {
		return;
	}
	const char *step = "account";
	int result = pam_acct_mgmt(pam, 0);
	if (result == PAM_SUCCESS) {
		step = "session";
		/* Who was not asked for a password has no credentials: that this fails for some modules is no reason. */
		(void)pam_setcred(pam, PAM_ESTABLISH_CRED | PAM_SILENT);
		result = pam_open_session(pam, 0);
	}
	if (result != PAM_SUCCESS) {
		refuse(step, pam, result);
		pam_end(pam, result);
		return;
	}
	const char *cannot = put_session(pam, &before);
	alarm(0);
	if (!cannot && reply()) {
		keep();
	}
	alarm(seconds);
	said_len = 0;
	result = pam_close_session(pam, 0);
	(void)pam_setcred(pam, PAM_DELETE_CRED | PAM_SILENT);
	if (cannot) {
		fail(cannot);
	} else if (result != PAM_SUCCESS) {
		say("failed", NULL, "end of the session", pam, result);
	} else {
		answer_len = 0;
		put("closed");
	}
	pam_end(pam, result);
}

/* take_password reads it into locked memory; false: there is none that an account can have. */
static bool take_password(char *secret) {
	size_t n = 0;
	ssize_t did = 1;
	while (n <= max_password && did != 0) {
		did = read(password_fd, secret + n, max_password + 1 - n);
		if (did < 0 && errno != EINTR) {
			return false;
		}
		n += did > 0 ? (size_t)did : 0;
	}
	if (n == 0 || n > max_password || memchr(secret, 0, n)) {
		return false;
	}
	secret[n] = 0;
	return true;
}

/* try gives the password to PAM. What comes of it is an answer about the password only if a module took it. */
static void try(pam_handle_t *pam, char *secret) {
	password = secret;
	int result = pam_authenticate(pam, PAM_DISALLOW_NULL_AUTHTOK);
	bool taken = !password;
	password = NULL;
	if (!taken && result == PAM_SUCCESS) {
		/* As pam_rootok does, because we are root. */
		fail("the service says yes without asking for a password, so it can check none");
	} else if (!taken) {
		refuse("before the password", pam, result);
	} else if (result == PAM_SUCCESS) {
		put("right");
	} else {
		say(result == PAM_AUTH_ERR ? "wrong" : "unsure", NULL, "password", pam, result);
	}
}

/* verify leaves no copy of the password: it is in locked memory from the descriptor on, and is wiped there. */
static void verify(void) {
	static char secret[max_password + 1];
	struct rlimit none = {0, 0};
	pam_handle_t *pam = NULL;
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0 || mlock(secret, sizeof secret) != 0) {
		fail("the password's memory cannot be protected");
		return;
	}
	if (!(pam = begin())) {
		return;
	}
	char text[max_text];
	const char *why = untriable(user, text, sizeof text);
	if (why) {
		bar(why, text);
	} else if (!take_password(secret)) {
		fail("there is no password, or one that no account can have");
	} else {
		try(pam, secret);
	}
	pam_end(pam, PAM_SUCCESS); /* wipes PAM's own copy */
	explicit_bzero(secret, sizeof secret);
}

/* The last answer is given when PAM has ended: then we may be killed. */
int main(int argc, char **argv) {
	const char *what = argc == 2 ? argv[1] : "";
	clearenv();
	umask(022);
	if (!read_question()) {
		return 64;
	}
	alarm(seconds);
	if (strcmp(what, "session") == 0) {
		session();
	} else if (strcmp(what, "verify") == 0) {
		verify();
	} else {
		fail("there is no such question");
	}
	return reply() ? 0 : 1;
}
