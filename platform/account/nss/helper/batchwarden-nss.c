/*
 * batchwarden-nss asks the C library who an account or a group is, for the launcher, which is built without one.
 *
 * It reads questions from descriptor 0 and writes answers to descriptor 1 until the end of its input, or until nobody
 * has asked for a minute. Both are a big-endian 32-bit length and that many octets: fields, each ended by a NUL.
 *
 *   question  "u" name | "i" uid | "g" group name, then the sources of accounts, then the sources of groups
 *   answer    "found" name uid gid home shell own (gid group-name)...   for "u" and "i"
 *             "found" gid name                                          for "g"
 *             "missing"                                                 every source was asked and does not know it
 *             "silent" text                                             nobody knows
 *
 * Sources are those of nsswitch.conf as "name:actions", parted by blanks; actions are four letters, r for return and c
 * for anything else, for success, notfound, unavail and tryagain.
 *
 * The C library's answer is the answer. But it says "not there", or gives too few groups, also when one source of
 * several did not answer. So each source is asked for itself once more, and what did not answer makes us silent. A
 * source whose module is not installed has nothing to say, as for everybody else on this machine.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	max_question = 4096,
	max_answer = 1 << 20,
	max_record = 8 << 20,  /* of the C library: a group of some hundred thousand members */
	max_groups = 1 << 16,  /* the kernel's own limit */
	max_service = 64,
	idle_seconds = 60,
	question_seconds = 60, /* whoever asks gives up earlier and kills us; this is for when he is gone */
};

static char answer[max_answer];
static size_t answer_len;
static char *record; /* where the C library puts strings */
static size_t record_size = 16 << 10;

static void put(const char *field) {
	size_t n = strlen(field) + 1;
	if (n > max_answer - answer_len) {
		answer_len = 0;
		put("silent");
		put("the answer is too long");
		return;
	}
	memcpy(answer + answer_len, field, n);
	answer_len += n;
}

static void put_number(unsigned long n) {
	char text[24];
	snprintf(text, sizeof text, "%lu", n);
	put(text);
}

static void put_silent(const char *who, const char *why) {
	char text[512];
	snprintf(text, sizeof text, "%s: %s", who, why);
	answer_len = 0;
	put("silent");
	put(text);
}

/* grow makes room for longer records; false: enough is enough. */
static bool grow(void) {
	if (record_size >= max_record) {
		return false;
	}
	char *more = realloc(record, record_size * 2);
	if (!more) {
		return false;
	}
	record = more;
	record_size *= 2;
	return true;
}

/* The three look-ups, by the C library or by one source's module. */
struct key {
	char kind;
	const char *name;
	uid_t uid;
};
typedef enum nss_status (*by_name)(const char *, void *, char *, size_t, int *);
typedef enum nss_status (*by_id)(uid_t, void *, char *, size_t, int *);
typedef enum nss_status (*init_groups)(const char *, gid_t, long *, long *, gid_t **, long, int *);
typedef enum nss_status (*set_entries)(int);
typedef enum nss_status (*end_entries)(void);
typedef enum nss_status (*next_entry)(struct group *, char *, size_t, int *);

/* look asks the C library. Its error number says too little: a missing source and a missing account look the same. */
static int look(struct key k, struct passwd *pw, struct group *gr, bool *found) {
	for (;;) {
		struct passwd *p = NULL;
		struct group *g = NULL;
		int err = k.kind == 'u' ? getpwnam_r(k.name, pw, record, record_size, &p)
			: k.kind == 'i' ? getpwuid_r(k.uid, pw, record, record_size, &p)
			: getgrnam_r(k.name, gr, record, record_size, &g);
		*found = p || g;
		if (err == EINTR || (err == ERANGE && grow())) {
			continue;
		}
		switch (err) {
		case ERANGE: case EIO: case EMFILE: case ENFILE: case ENOMEM: case EAGAIN:
			return *found ? 0 : err;
		}
		return 0;
	}
}

/* next_source takes the next "name:actions" off the list. */
static bool next_source(const char **list, char name[max_service], char actions[5]) {
	int used = 0;
	while (**list == ' ') {
		++*list;
	}
	if (sscanf(*list, "%63[^: ]:%4[rc]%n", name, actions, &used) != 2 || strlen(actions) != 4) {
		return false;
	}
	*list += used;
	return true;
}

/*
 * module finds a function of a source's module. NULL with *broken unset: the module is not installed or lacks it, so
 * that the C library has nothing from it either. The handle is kept, as the C library keeps it.
 */
static void *module(const char *source, const char *function, bool *broken) {
	char lib[96], symbol[128];
	snprintf(lib, sizeof lib, "libnss_%s.so.2", source);
	snprintf(symbol, sizeof symbol, "_nss_%s_%s", source, function);
	void *at = dlsym(RTLD_DEFAULT, symbol); /* newer C libraries contain files */
	if (at) {
		return at;
	}
	void *handle = dlopen(lib, RTLD_NOW);
	if (handle) {
		return dlsym(handle, symbol);
	}
	const char *why = dlerror();
	*broken = !why || strncmp(why, lib, strlen(lib)) != 0 || !strstr(why, strerror(ENOENT));
	return NULL;
}

/* returns tells whether the C library goes no further after a source with this status. */
static bool returns(const char *actions, enum nss_status s) {
	int at = s == NSS_STATUS_SUCCESS ? 0 : s == NSS_STATUS_NOTFOUND ? 1 : s == NSS_STATUS_UNAVAIL ? 2 : 3;
	return actions[at] == 'r';
}

/* ask asks one source for what the C library did not find. */
static enum nss_status ask(void *function, struct key k) {
	union {
		struct passwd pw;
		struct group gr;
	} into;
	for (;;) {
		int err = 0;
		enum nss_status s = k.kind == 'i' ? ((by_id)function)(k.uid, &into, record, record_size, &err)
			: ((by_name)function)(k.name, &into, record, record_size, &err);
		if (s != NSS_STATUS_TRYAGAIN || err != ERANGE || !grow()) {
			return s;
		}
	}
}

/* put_missing answers for what the C library did not find: only if every source it asked said so. */
static void put_missing(struct key k, const char *sources) {
	const char *function = k.kind == 'u' ? "getpwnam_r" : k.kind == 'i' ? "getpwuid_r" : "getgrnam_r";
	char source[max_service], actions[5];
	while (next_source(&sources, source, actions)) {
		bool broken = false;
		void *at = module(source, function, &broken);
		enum nss_status s = at ? ask(at, k) : NSS_STATUS_UNAVAIL;
		if (broken || (at && s != NSS_STATUS_NOTFOUND)) {
			put_silent(source, s == NSS_STATUS_SUCCESS ? "it appeared while it was asked for" : "this source does not answer");
			return;
		}
		if (returns(actions, s)) {
			break;
		}
	}
	put("missing");
}

struct groups {
	gid_t *ids;
	long n, size;
};

/* add is for sources that can only list all groups. */
static bool add(struct groups *g, gid_t id) {
	if (g->n == g->size) {
		gid_t *more = realloc(g->ids, 2 * (size_t)g->size * sizeof *more);
		if (!more || g->size > max_groups) {
			free(more ? NULL : g->ids);
			g->ids = more;
			return false;
		}
		g->ids = more;
		g->size *= 2;
	}
	g->ids[g->n++] = id;
	return true;
}

/* enumerate finds the groups of an account as the C library does where a module has no better way. */
static enum nss_status enumerate(const char *source, const char *name, gid_t gid, struct groups *into) {
	bool broken = false;
	set_entries set = (set_entries)module(source, "setgrent", &broken);
	next_entry next = (next_entry)module(source, "getgrent_r", &broken);
	end_entries end = (end_entries)module(source, "endgrent", &broken);
	if (!next) {
		return broken ? NSS_STATUS_UNAVAIL : NSS_STATUS_NOTFOUND;
	}
	enum nss_status s = set ? set(0) : NSS_STATUS_SUCCESS;
	struct group gr = {0};
	while (s == NSS_STATUS_SUCCESS) {
		int err = 0;
		s = next(&gr, record, record_size, &err);
		if (s == NSS_STATUS_TRYAGAIN && err == ERANGE && grow()) {
			s = NSS_STATUS_SUCCESS;
			continue;
		}
		for (char **m = gr.gr_mem; s == NSS_STATUS_SUCCESS && gr.gr_gid != gid && *m; m++) {
			if (strcmp(*m, name) == 0 && !add(into, gr.gr_gid)) {
				s = NSS_STATUS_TRYAGAIN;
			}
		}
	}
	if (end) {
		end();
	}
	return s;
}

/* each_groups asks every source for the account's groups. It returns the source that did not answer, or NULL. */
static const char *each_groups(const char *name, gid_t gid, const char *sources, struct groups *into) {
	static char source[max_service];
	char actions[5];
	while (next_source(&sources, source, actions)) {
		bool broken = false;
		int err = 0;
		init_groups at = (init_groups)module(source, "initgroups_dyn", &broken);
		if (broken) {
			return source;
		}
		enum nss_status s = at ? at(name, gid, &into->n, &into->size, &into->ids, -1, &err)
			: enumerate(source, name, gid, into);
		if (s == NSS_STATUS_UNAVAIL && err == ESRCH && strcmp(source, "systemd") == 0) {
			s = NSS_STATUS_NOTFOUND; /* its way to say that nobody provides any records */
		}
		if (s != NSS_STATUS_SUCCESS && s != NSS_STATUS_NOTFOUND) {
			return source;
		}
		if (returns(actions, s)) {
			break;
		}
	}
	return NULL;
}

static bool contains(const gid_t *ids, long n, gid_t id) {
	for (long i = 0; i < n; i++) {
		if (ids[i] == id) {
			return true;
		}
	}
	return false;
}

/*
 * groups_of returns what the C library says, once every source has said the same by itself; else NULL after an answer
 * of silence. A source that answered only us, or only the C library, shows as a group that the other lacks.
 */
static gid_t *groups_of(const char *name, gid_t gid, const char *sources, int *n) {
	struct groups each = {.n = 1, .size = 64};
	int size = 64;
	gid_t *all = malloc((size_t)size * sizeof *all);
	each.ids = malloc((size_t)each.size * sizeof *each.ids);
	for (*n = size; all && getgrouplist(name, gid, all, n) < 0; *n = size) {
		size = *n > size ? *n : size * 2;
		gid_t *more = size <= max_groups ? realloc(all, (size_t)size * sizeof *more) : NULL;
		if (!more) {
			free(all);
		}
		all = more;
	}
	if (!all || !each.ids) {
		put_silent(name, "there is no room for its groups");
		free(all);
		free(each.ids);
		return NULL;
	}
	each.ids[0] = gid;
	const char *silent = each_groups(name, gid, sources, &each);
	if (silent) {
		put_silent(silent, "this source does not answer, so the groups are not known");
	}
	/* nscd may be behind its sources by design. */
	for (long i = 0; !silent && i < each.n && access("/var/run/nscd/socket", F_OK) != 0; i++) {
		if (!contains(all, *n, each.ids[i])) {
			put_silent(silent = name, "its groups changed while they were asked for");
		}
	}
	free(each.ids);
	if (silent) {
		free(all);
		return NULL;
	}
	return all;
}

/* group_of fills in the group's record; 1: there is none, -1: nobody knows. */
static int group_of(gid_t gid, struct group *gr) {
	for (;;) {
		struct group *found = NULL;
		int err = getgrgid_r(gid, gr, record, record_size, &found);
		if (found) {
			return 0;
		}
		if (err == EINTR || (err == ERANGE && grow())) {
			continue;
		}
		return err == 0 || err == ENOENT || err == ESRCH ? 1 : -1;
	}
}

/* put_account answers with the account that lies in the record, which the look-ups for its groups overwrite. */
static void put_account(const struct passwd *pw, const char *sources) {
	char *name = strdup(pw->pw_name);
	gid_t gid = pw->pw_gid;
	struct group gr = {0};
	put("found");
	put(name ? name : "");
	put_number(pw->pw_uid);
	put_number(gid);
	put(pw->pw_dir ? pw->pw_dir : "");
	put(pw->pw_shell ? pw->pw_shell : "");
	int n = 0;
	gid_t *ids = name ? groups_of(name, gid, sources, &n) : NULL;
	if (!ids) {
		if (!name) {
			put_silent("account", "there is no memory");
		}
		free(name);
		return;
	}
	/* Own: the primary group carries the account's name and lists nobody else. */
	bool own = group_of(gid, &gr) == 0 && strcmp(gr.gr_name, name) == 0;
	for (char **m = gr.gr_mem; own && *m; m++) {
		own = strcmp(*m, name) == 0;
	}
	put(own ? "own" : "");
	for (int i = 0; i < n; i++) {
		int missing = contains(ids, i, ids[i]) ? 2 : group_of(ids[i], &gr);
		if (missing == 2) {
			continue;
		}
		if (missing < 0) {
			put_silent(name, "the name of one of its groups is not to be had");
			break;
		}
		put_number(ids[i]);
		put(missing ? "" : gr.gr_name);
	}
	free(ids);
	free(name);
}

static void reply(char *question, size_t len) {
	char *fields[4];
	char *at = question;
	for (int i = 0; i < 4; i++) {
		char *end = at < question + len ? memchr(at, 0, (size_t)(question + len - at)) : NULL;
		if (!end) {
			put_silent("question", "it cannot be understood");
			return;
		}
		fields[i] = at;
		at = end + 1;
	}
	struct key k = {.kind = fields[0][0], .name = fields[1]};
	k.uid = k.kind == 'i' ? (uid_t)strtoul(fields[1], NULL, 10) : 0;
	const char *accounts = fields[2], *groups = fields[3];
	struct passwd pw;
	struct group gr;
	bool found;
	int err = look(k, &pw, &gr, &found);
	if (err) {
		put_silent(fields[1], strerror(err));
	} else if (!found) {
		put_missing(k, k.kind == 'g' ? groups : accounts);
	} else if (k.kind == 'g') {
		put("found");
		put_number(gr.gr_gid);
		put(gr.gr_name);
	} else {
		put_account(&pw, groups);
	}
}

/* all reads or writes n octets; false: there are no more, or nobody reads. */
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

static ssize_t give(int fd, void *data, size_t n) { return write(fd, data, n); }

int main(void) {
	static char question[max_question];
	uint32_t len;
	record = malloc(record_size);
	for (; record; alarm(idle_seconds)) {
		if (!all(read, 0, &len, sizeof len)) {
			return 0;
		}
		len = ntohl(len);
		if (len > max_question || !all(read, 0, question, len)) {
			return 1;
		}
		alarm(question_seconds);
		answer_len = 0;
		reply(question, len);
		len = htonl((uint32_t)answer_len);
		if (!all(give, 1, &len, sizeof len) || !all(give, 1, answer, answer_len)) {
			return 1;
		}
	}
	return 1;
}
