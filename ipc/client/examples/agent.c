/* An agent in C: agent SOCKET REALM SUBJECT BATCH_USER ID COMMAND...
 * The last line it writes is the job as JSON; the exit code is 0 when the job's was.
 * Build: cc -o agent agent.c */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *path;
static char answer[1 << 20]; /* the body of the last one */

/* Whoever else could have put the socket there could read what is sent, and answer. */
static void check(const char *name)
{
	struct stat at;
	if (stat(name, &at) == 0 && at.st_uid == 0 && (S_ISSOCK(at.st_mode) || !(at.st_mode & 022)))
		return;
	fprintf(stderr, "%s is not root's alone\n", name);
	exit(69);
}

/* One request on a connection of its own. Returns the status, 0 when there was no answer. */
static int try(const char *method, const char *target, const char *body)
{
	static char request[1 << 20];
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t got = 0;
	ssize_t n;
	int status = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char *begin;

	snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
	n = snprintf(request, sizeof request,
		     "%s %s HTTP/1.0\r\nHost: batchwarden\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
		     method, target, strlen(body), body);
	if (n < (ssize_t)sizeof request && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
	    send(fd, request, n, MSG_NOSIGNAL) == n)
		while (got < sizeof answer - 1 && (n = read(fd, answer + got, sizeof answer - 1 - got)) > 0)
			got += n;
	close(fd);
	answer[got] = 0;
	if (sscanf(answer, "HTTP/1.%*c %d", &status) != 1 || !(begin = strstr(answer, "\r\n\r\n")))
		return 0;
	memmove(answer, begin + 4, strlen(begin + 4) + 1);
	return status;
}

/* Waits for a service that is being restarted. A launch may be repeated because it has an id. */
static void call(const char *method, const char *target, const char *body)
{
	for (int left = 60; left > 0; left--) {
		int status = try(method, target, body);
		if (status >= 200 && status < 300)
			return;
		if (status && status != 429 && status != 503)
			break;
		sleep(1);
	}
	fprintf(stderr, "%s %s: %s\n", method, target, *answer ? answer : "no answer");
	exit(69);
}

/* Adds text as a JSON string. */
static void quote(char *to, size_t room, const char *text)
{
	size_t n = strlen(to);
	if (n + 6 * strlen(text) + 4 > room)
		exit(64);
	to[n++] = '"';
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == '"' || *text == '\\')
			n += sprintf(to + n, "\\u%04x", *text);
		else
			to[n++] = *text;
	strcpy(to + n, "\"");
}

int main(int argc, char **argv)
{
	static char who[1 << 16], body[1 << 18], target[512], dir[4096];
	const char *members[] = {"\"realm\":", ",\"subject\":{\"user\":", "},\"batch_user\":"};

	if (argc < 7)
		return 64;
	path = argv[1];
	snprintf(dir, sizeof dir, "%s", path);
	check(path);
	check(dirname(dir));
	for (int i = 0; i < 3; i++) {
		strcat(who, members[i]);
		quote(who, sizeof who - 64, argv[2 + i]);
	}
	call("GET", "/v1/whoami", "");
	fputs(answer, stdout);
	snprintf(body, sizeof body, "{%s}", who);
	call("POST", "/v1/authorize", body);
	fputs(answer, stdout);
	if (!strstr(answer, "\"allowed\":true"))
		return 1;
	/* The same id and body are the same job, however often they are sent: also by an agent that was restarted. */
	snprintf(body, sizeof body, "{%s,\"id\":", who);
	quote(body, sizeof body - 64, argv[5]);
	for (int i = 6; i < argc; i++) {
		strcat(body, i == 6 ? ",\"command\":[" : ",");
		quote(body, sizeof body - 64, argv[i]);
	}
	strcat(body, "]}");
	call("POST", "/v1/jobs", body);
	snprintf(target, sizeof target, "/v1/jobs/%s?wait=30s", argv[5]);
	do
		call("GET", target, "");
	while (strstr(answer, "\"state\":\"starting\"") || strstr(answer, "\"state\":\"running\""));
	fputs(answer, stdout);
	return strstr(answer, "\"exit_code\":0,") ? 0 : 1;
}
