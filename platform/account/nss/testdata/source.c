/*
 * A source of accounts for nsswitch.conf: /etc/SOURCE.passwd and /etc/SOURCE.group, in the usual form. What is in
 * /etc/SOURCE.mode happens to every question: hang, unavail, tryagain, exit; "groups MODE" to those for groups alone.
 * Without DYN it can only list all groups. Compiled with -DSOURCE=name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT1(x) #x
#define TEXT(x) TEXT1(x)
#define GLUE2(a, b, c) a##b##_##c
#define GLUE1(a, b, c) GLUE2(a, b, c)
#define API(f) GLUE1(_nss_, SOURCE, f)
#define PATH(x) "/etc/" TEXT(SOURCE) "." x

static enum nss_status mode(int groups, int *err) {
	char text[64] = "", *word = text;
	FILE *f = fopen(PATH("mode"), "re");
	if (f) {
		if (!fgets(text, sizeof text, f)) {
			text[0] = 0;
		}
		fclose(f);
	}
	if (strncmp(text, "groups ", 7) == 0) {
		word = groups ? text + 7 : "";
	}
	*err = EAGAIN;
	switch (word[0]) {
	case 'h': for (;;) pause();
	case 'u': return NSS_STATUS_UNAVAIL;
	case 't': return NSS_STATUS_TRYAGAIN;
	case 'e': _exit(3);
	}
	return NSS_STATUS_SUCCESS;
}

static enum nss_status user(const char *name, uid_t uid, struct passwd *pw, char *buf, size_t n, int *err) {
	enum nss_status s = mode(0, err);
	if (s != NSS_STATUS_SUCCESS) {
		return s;
	}
	FILE *f = fopen(PATH("passwd"), "re");
	struct passwd *found;
	int e = ENOENT;
	while (f && (e = fgetpwent_r(f, pw, buf, n, &found)) == 0 && !(name ? strcmp(name, pw->pw_name) == 0 : uid == pw->pw_uid)) {
	}
	if (f) {
		fclose(f);
	}
	*err = e;
	return e == 0 ? NSS_STATUS_SUCCESS : e == ERANGE ? NSS_STATUS_TRYAGAIN : NSS_STATUS_NOTFOUND;
}

enum nss_status API(getpwnam_r)(const char *name, struct passwd *pw, char *buf, size_t n, int *err) {
	return user(name, 0, pw, buf, n, err);
}

enum nss_status API(getpwuid_r)(uid_t uid, struct passwd *pw, char *buf, size_t n, int *err) {
	return user(NULL, uid, pw, buf, n, err);
}

static FILE *list;

enum nss_status API(setgrent)(int stay) {
	int err;
	(void)stay;
	enum nss_status s = mode(1, &err);
	if (s == NSS_STATUS_SUCCESS) {
		list = fopen(PATH("group"), "re");
	}
	return s;
}

enum nss_status API(endgrent)(void) {
	if (list) {
		fclose(list);
	}
	list = NULL;
	return NSS_STATUS_SUCCESS;
}

enum nss_status API(getgrent_r)(struct group *gr, char *buf, size_t n, int *err) {
	struct group *found;
	long at = list ? ftell(list) : 0;
	*err = list ? fgetgrent_r(list, gr, buf, n, &found) : ENOENT;
	if (*err == ERANGE) {
		fseek(list, at, SEEK_SET);
		return NSS_STATUS_TRYAGAIN;
	}
	return *err == 0 ? NSS_STATUS_SUCCESS : NSS_STATUS_NOTFOUND;
}

static enum nss_status group(const char *name, gid_t gid, struct group *gr, char *buf, size_t n, int *err) {
	enum nss_status s = API(setgrent)(0);
	*err = EAGAIN;
	while (s == NSS_STATUS_SUCCESS) {
		s = API(getgrent_r)(gr, buf, n, err);
		if (s == NSS_STATUS_SUCCESS && (name ? strcmp(name, gr->gr_name) == 0 : gid == gr->gr_gid)) {
			break;
		}
	}
	API(endgrent)();
	return s;
}

enum nss_status API(getgrnam_r)(const char *name, struct group *gr, char *buf, size_t n, int *err) {
	return group(name, 0, gr, buf, n, err);
}

enum nss_status API(getgrgid_r)(gid_t gid, struct group *gr, char *buf, size_t n, int *err) {
	return group(NULL, gid, gr, buf, n, err);
}

#ifdef DYN
enum nss_status API(initgroups_dyn)(const char *name, gid_t gid, long *start, long *size, gid_t **ids, long limit, int *err) {
	static char buf[1 << 20];
	struct group gr;
	enum nss_status s = mode(1, err);
	if (s != NSS_STATUS_SUCCESS) {
		return s;
	}
	(void)limit;
	s = NSS_STATUS_NOTFOUND;
	API(setgrent)(0);
	while (API(getgrent_r)(&gr, buf, sizeof buf, err) == NSS_STATUS_SUCCESS) {
		for (char **m = gr.gr_mem; *m && gr.gr_gid != gid; m++) {
			if (strcmp(*m, name) == 0) {
				if (*start == *size) {
					*size *= 2;
					*ids = realloc(*ids, (size_t)*size * sizeof **ids);
				}
				(*ids)[(*start)++] = gr.gr_gid;
				s = NSS_STATUS_SUCCESS;
			}
		}
	}
	API(endgrent)();
	return s;
}
#endif
