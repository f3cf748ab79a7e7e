/*
 * pam_scan counts, when PAM ends, how often a password is in this process, and appends the number to a file. Its
 * arguments are the file and the password in hexadecimal, so that the password itself is in no argument.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <security/pam_modules.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scan {
	char path[256], hex[256];
};

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* at compares without making a copy of the password. */
static int at(const char *p, const char *hex) {
	for (; *hex; hex += 2, p++) {
		if ((unsigned char)*p != digit(hex[0]) * 16 + digit(hex[1])) {
			return 0;
		}
	}
	return 1;
}

static void count(pam_handle_t *pam, void *data, int status) {
	struct scan *s = data;
	size_t len = strlen(s->hex) / 2;
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), found = 0;
	FILE *maps = fopen("/proc/self/maps", "re"), *out = fopen(s->path, "ae");
	unsigned long from, to;
	char mode[8], line[512];
	(void)pam, (void)status;
	while (maps && fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[0] != 'r' || strstr(line, "[v")) {
			continue;
		}
		char *copy = malloc(to - from);
		ssize_t n = copy ? pread(mem, copy, to - from, (off_t)from) : 0;
		for (ssize_t i = 0; i + (ssize_t)len <= n; i++) {
			found += at(copy + i, s->hex);
		}
		if (n > 0) {
			explicit_bzero(copy, (size_t)n);
		}
		free(copy);
	}
	if (out) {
		fprintf(out, "%d copies\n", found);
		fclose(out);
	}
	close(mem);
	fclose(maps);
	free(s);
}

int pam_sm_authenticate(pam_handle_t *pam, int flags, int argc, const char **argv) {
	struct scan *s = calloc(1, sizeof *s);
	(void)flags, (void)argc;
	snprintf(s->path, sizeof s->path, "%s", argv[0]);
	snprintf(s->hex, sizeof s->hex, "%s", argv[1]);
	if (argc > 2) { /* to see that a copy is found */
		static char *volatile kept;
		kept = calloc(1, 64); /* for ever */
		for (size_t i = 0; i < strlen(s->hex) / 2; i++) {
			kept[i] = (char)(digit(s->hex[2 * i]) * 16 + digit(s->hex[2 * i + 1]));
		}
	}
	return pam_set_data(pam, "scan", s, count);
}

int pam_sm_setcred(pam_handle_t *pam, int flags, int argc, const char **argv) {
	(void)pam, (void)flags, (void)argc, (void)argv;
	return PAM_SUCCESS;
}
