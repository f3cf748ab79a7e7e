/* For each octet on standard input: run /bin/true to its end, say k or x. */
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(void) {
	char *argv[] = {"/bin/true", NULL};
	char octet;
	while (read(0, &octet, 1) == 1) {
		pid_t pid;
		int status = 1;
		octet = 'x';
		if (posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0 && waitpid(pid, &status, 0) == pid && status == 0)
			octet = 'k';
		if (write(1, &octet, 1) != 1)
			return 1;
	}
	return 0;
}
