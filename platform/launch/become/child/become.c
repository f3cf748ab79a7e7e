/* batchwarden-become is what a job's process begins as: started by the launcher with the launcher's rights and in the
 * job's cgroup, it gives those rights up for good, proves that, and turns into the job's command by exec. Package
 * become describes the steps, their order, and what is said about them.
 *
 * It has no C library: what is not written here does not happen while it is root, and its start costs a third. */
#include "sys.h"

enum { TALK = 3, PARCEL = 4 }; /* descriptors: the launcher's socket, and the one that stdin, stdout and stderr lie in */
enum { MAX_ORDER = 5 << 20, MAX_TEXTS = 1 << 18, MAX_GROUPS = 65536, MAX_LIMITS = 16, MAX_LINKS = 40 };
enum { PASSED = 1, PINNED = 2, NICE = 4 };

/* Behind it lie limits, groups, and texts that each end with a NUL: directory, paths, arguments, environment. */
static struct order {
	u32 magic, length, uid, gid, own_group, umask, flags;
	__s32 nice;
	u32 limits, groups, paths, args, envs, dev_major, dev_minor, ctime_nsec;
	u64 ino;
	__s64 size, ctime;
	u64 ignored; /* signals, by bit: the launcher's own */
} *o;

static union {
	struct order head;
	char bytes[MAX_ORDER + 1]; /* and the last word */
} room;

static struct limit {
	u32 resource, unused;
	u64 soft, hard;
} *limits;

static u32 *groups;
static const char *texts[MAX_TEXTS + 5], **paths, **args, **envs;

/* Numbered as in answer.go. */
enum step { ORDERS = 1, DESCRIPTORS, SESSION, SIGNALS, UMASK, LIMITS, GROUPS, GID, UID, CAPABILITIES, PROOF, STDIO, CHDIR, COMMAND, EXEC };
enum why { ERRNO, MALFORMED, IDS, GROUP_SET, CAPS, WAY_BACK, PIECES, DESCRIPTOR, NOT_FOUND, NOT_REGULAR, NOT_EXECUTABLE, NOT_PINNED, OWNER, EVERYBODY, WRITING_GROUP, ANOTHER, INTERPRETER };

static struct answer {
	u32 step, error, why, a, b, by_path;
	char element[232]; /* of a path: the one that it is about */
} answer;

static long because(long error, enum why why, u32 a, u32 b)
{
	return answer.why = why, answer.a = a, answer.b = b, error;
}

static long must(enum step s, long result)
{
	if (result >= 0)
		return result;
	answer.step = s, answer.error = -result;
	sys(write, TALK, &answer, sizeof answer); /* there is nobody else to tell */
	for (;;)
		sys(exit_group, 125);
}

/* wrong is for what no errno stands for. */
static void wrong(enum step s, int is, enum why why, u32 a, u32 b)
{
	if (is)
		must(s, because(-EPROTO, why, a, b));
}

static u32 take(u32 have, u32 want)
{
	struct control c; /* PARCEL comes with the first octet, as the lowest number that is free */
	while (have < want) {
		long n = receive(TALK, room.bytes + have, want - have, 0, &c);
		if (n == -EINTR)
			continue;
		wrong(ORDERS, must(ORDERS, n) == 0, MALFORMED, 0, have); /* the launcher ended while it wrote */
		have += n;
	}
	return have;
}

/* list takes n texts in, and a null behind them. */
static const char **list(const char **text, u32 n)
{
	static u32 used;
	for (u32 i = 0; i < n; *text += length(*text) + 1, i++) {
		wrong(ORDERS, *text >= room.bytes + o->length, MALFORMED, 9, i);
		texts[used++] = *text;
	}
	return texts + used++ - n;
}

static void read_order(void)
{
	o = &room.head;
	u64 at = take(0, sizeof *o);
	wrong(ORDERS, o->magic != 0x62776f32 || o->length > MAX_ORDER || o->length < at, MALFORMED, 1, o->length);
	take(at, o->length);
	wrong(ORDERS, o->uid == ~0u || o->umask > 0777 || o->flags > 7 || o->nice < -20 || o->nice > 19, MALFORMED, 2, 0);
	wrong(ORDERS, o->limits > MAX_LIMITS || o->groups > MAX_GROUPS || !o->args, MALFORMED, 3, 0);
	wrong(ORDERS, (u64)o->paths + o->args + o->envs > MAX_TEXTS, MALFORMED, 4, 0);
	limits = (struct limit *)(room.bytes + at);
	groups = (u32 *)(limits + o->limits);
	at += o->limits * sizeof *limits + o->groups * sizeof *groups;
	wrong(ORDERS, at >= o->length || room.bytes[o->length - 1], MALFORMED, 5, 0);
	for (u32 i = 0; i < o->limits; i++)
		wrong(ORDERS, limits[i].resource >= MAX_LIMITS || limits[i].unused || limits[i].soft > limits[i].hard, MALFORMED, 6, i);
	int member = 0; /* the primary group is one of the account's */
	for (u32 i = 0; i < o->groups; i++) {
		wrong(ORDERS, groups[i] == ~0u || (i && groups[i] <= groups[i - 1]), MALFORMED, 7, i);
		member |= groups[i] == o->gid;
	}
	wrong(ORDERS, !member, MALFORMED, 8, o->gid);
	const char *text = room.bytes + at;
	list(&text, 1);
	paths = list(&text, o->paths), args = list(&text, o->args), envs = list(&text, o->envs);
	wrong(ORDERS, text != room.bytes + o->length, MALFORMED, 10, 0);
}

/* close_on_exec: PARCEL comes with that, and the launcher leaves nothing else open; that is made sure of where the kernel
 * can, which is from Linux 5.11 on. */
static void close_on_exec(void)
{
	if (sys(close_range, TALK, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) < 0)
		must(DESCRIPTORS, sys(fcntl, TALK, F_SETFD, 1 /* FD_CLOEXEC */));
}

/* reset_signals: the job begins with no signal blocked and none ignored, whatever the launcher was started with. What
 * that handles the exec has reset. */
static void reset_signals(void)
{
	static const u64 none[8]; /* a struct sigaction of the kernel's that says SIG_DFL, and an empty set */
	for (int sig = 1; sig <= 64; sig++)
		if (o->ignored >> (sig - 1) & 1)
			must(SIGNALS, sys(rt_sigaction, sig, none, 0, sizeof *none));
	must(SIGNALS, sys(rt_sigprocmask, 2 /* SIG_SETMASK */, none, 0, sizeof *none));
}

/* put writes what the kernel may not let us write, as in a container: then it stays as it is. */
static void put(const char *file, u32 number)
{
	char digits[10];
	int at = sizeof digits;
	for (digits[--at] = '0' + number % 10; number /= 10;)
		digits[--at] = '0' + number % 10;
	long fd = sys(openat, AT_FDCWD, file, O_WRONLY | O_CLOEXEC);
	sys(write, fd, digits + at, sizeof digits - at);
	sys(close, fd);
}

static void set_limits(void)
{
	for (u32 i = 0; i < o->limits; i++)
		must(LIMITS, sys(prlimit64, 0, limits[i].resource, &limits[i].soft, 0));
	if (o->flags & NICE)
		must(LIMITS, sys(setpriority, 0, 0, o->nice));
	put("/proc/self/oom_score_adj", 0); /* like any other's, whatever the launcher's is */
	put("/proc/self/loginuid", o->uid); /* whom the kernel's audit names */
}

static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
static struct __user_cap_data_struct caps[2];

/* give_up leaves the launcher's identity. A job of root's keeps root's capabilities. */
static void give_up(void)
{
	must(GROUPS, sys(setgroups, o->groups, groups));
	must(GID, sys(setresgid, o->gid, o->gid, o->gid));
	must(UID, sys(setresuid, o->uid, o->uid, o->uid));
	/* Nobody else of this uid may look into, or steer, this process before it is the job. */
	must(CAPABILITIES, sys(prctl, PR_SET_DUMPABLE, 0));
	/* The change of the uid leaves the inheritable set, which an exec could turn into rights. */
	if (o->uid != 0)
		must(CAPABILITIES, sys(capset, &header, caps));
}

/* prove asks the kernel what this process is now, and tries the way back. */
static void prove(void)
{
	static u32 now[MAX_GROUPS];
	/* An id that is nobody's changes nothing and returns what is in force. */
	u32 u[] = {0, 0, 0, sys(setfsuid, -1)}, g[] = {0, 0, 0, sys(setfsgid, -1)};
	must(PROOF, sys(getresuid, u, u + 1, u + 2));
	must(PROOF, sys(getresgid, g, g + 1, g + 2));
	for (int i = 0; i < 4; i++)
		wrong(PROOF, u[i] != o->uid || g[i] != o->gid, IDS, u[i], g[i]);
	u32 n = must(PROOF, sys(getgroups, MAX_GROUPS, now));
	wrong(PROOF, n != o->groups, GROUP_SET, n, o->groups);
	for (u32 i = 0; i < n; i++) /* both are sorted */
		wrong(PROOF, now[i] != groups[i], GROUP_SET, now[i], groups[i]);
	if (o->uid == 0)
		return;
	must(PROOF, sys(capget, &header, caps));
	for (int i = 0; i < 2; i++) /* the ambient set is always within these */
		wrong(PROOF, caps[i].effective | caps[i].permitted | caps[i].inheritable, CAPS, caps[i].permitted, caps[i].inheritable);
	long tries[] = {sys(setuid, 0), sys(setreuid, -1, 0), sys(setresuid, 0, 0, 0), sys(setgroups, 0, 0), o->gid ? sys(setgid, 0) : -EPERM};
	for (u32 i = 0; i < sizeof tries / sizeof *tries; i++)
		wrong(PROOF, tries[i] != -EPERM, WAY_BACK, i, -tries[i]);
}

#define look(at, name, flags, st) sys(statx, at, name, flags, STATX_BASIC_STATS, st)

/* take_stdio makes the passed descriptors this process's 0, 1 and 2. Whoever made them may serve their files himself,
 * and let whoever uses or closes one wait for ever: nobody with more rights than the job has had them open. */
static void take_stdio(void)
{
	char octet;
	struct statx st;
	struct control c = {0};
	long n = must(STDIO, receive(PARCEL, &octet, 1, 0x40 /* MSG_DONTWAIT */, &c));
	/* Other than three make it another length: there is room for four. */
	wrong(STDIO, n != 1 || c.length != 16 + 3 * sizeof(int) || c.level != 1 /* SOL_SOCKET */ || c.type != 1 /* SCM_RIGHTS */,
		PIECES, n, c.length);
	for (u32 i = 0; i < 3; i++) {
		because(0, DESCRIPTOR, i, 0);
		if (must(STDIO, sys(fcntl, c.fds[i], F_GETFL)) & O_PATH) /* opened without access */
			must(STDIO, -EBADF);
		must(STDIO, look(c.fds[i], "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, &st));
		if ((st.stx_mode & S_IFMT) == S_IFDIR) /* by one a job could leave where it belongs */
			must(STDIO, -EISDIR);
		/* None of them is 0, 1 or 2: those were taken. The exec closes what they were, and keeps the copy. */
		must(STDIO, sys(dup3, c.fds[i], i, 0));
	}
}

/* The walker goes along a path and looks at each thing it passes. */
static int here = -1;   /* O_PATH descriptor of where it is */
static struct statx st; /* of that */
static char path_room[4 * PATH_MAX], *rest; /* the path that is left, at the end of the room */

/* trusted: whoever is neither root nor the user must not have put the thing there nor be able to change it. What its
 * group can write, the group can change, unless that is root's or the user's own one. */
static long trusted(const struct statx *s)
{
	u32 mode = s->stx_mode & 07777;
	if (s->stx_uid != 0 && s->stx_uid != o->uid)
		return because(-EPERM, OWNER, s->stx_uid, mode);
	if (S_ISLNK(s->stx_mode) || (S_ISDIR(s->stx_mode) && mode & S_ISVTX))
		return 0; /* a link's mode means nothing; in the other nobody can replace what belongs to root or the user */
	if (mode & S_IWOTH)
		return because(-EPERM, EVERYBODY, 0, mode);
	if (mode & S_IWGRP && s->stx_gid != 0 && s->stx_gid != o->own_group)
		return because(-EPERM, WRITING_GROUP, s->stx_gid, mode);
	return 0;
}

/* arrive makes fd the place where the walker is. */
static long arrive(long fd)
{
	if (fd < 0)
		return fd;
	sys(close, here);
	here = fd;
	long e = look(fd, "", AT_EMPTY_PATH, &st);
	return e < 0 ? e : trusted(&st);
}

#define root() arrive(sys(openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC))

/* go_by puts a path and a slash before what is left. */
static long go_by(const char *path, long n)
{
	if (n + 1 > rest - path_room)
		return -ENAMETOOLONG;
	*--rest = '/';
	memcpy(rest -= n, path, n);
	return 0;
}

/* advance opens one name without following it. A directory is opened as one where more follows: only then does the
 * kernel mount what an automounter has for it. */
static long advance(const char *name, int *links)
{
	static char target[PATH_MAX];
	const int flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
	struct statx s;
	long fd = *rest ? sys(openat, here, name, flags | O_DIRECTORY) : -ENOTDIR;
	if (fd == -ENOTDIR)
		fd = sys(openat, here, name, flags);
	if (fd < 0 || look(fd, "", AT_EMPTY_PATH, &s) < 0 || !S_ISLNK(s.stx_mode))
		return arrive(fd);
	long n = sys(readlinkat, fd, "", target, sizeof target), e = trusted(&s);
	sys(close, fd);
	if (e < 0 || n < 0)
		return e < 0 ? e : n;
	if (n == sizeof target || ++*links > MAX_LINKS)
		return -ELOOP;
	e = go_by(target, n);
	return e == 0 && target[0] == '/' ? root() : e;
}

/* walk ends where path leads. */
static long walk(const char *path)
{
	int links = 0;
	rest = path_room + sizeof path_room - 1;
	long e = go_by(path, length(path));
	if (e == 0 && path[0] != '/')
		e = go_by(texts[0], length(texts[0]));
	for (e = e < 0 ? e : root(); e >= 0;) {
		while (*rest == '/')
			rest++;
		char *name = rest, *end;
		while (*rest && *rest != '/')
			rest++;
		for (end = rest; *rest == '/'; rest++)
			*end = 0;
		if (!*name)
			return 0;
		for (u32 i = 0; i < sizeof answer.element - 1 && (answer.element[i] = name[i]); i++)
			;
		if (name[0] != '.' || name[1])
			e = advance(name, &links);
	}
	return e;
}

/* open_command opens a command for execution, as the user. */
static long open_command(const char *path)
{
	because(0, ERRNO, 0, 0);
	long e = walk(path);
	if (e < 0)
		return e;
	if (!S_ISREG(st.stx_mode))
		return because(-EACCES, NOT_REGULAR, 0, 0);
	/* The user's real and effective ids are the same by now. Before Linux 5.8 the exec alone says it. */
	e = sys(faccessat2, here, "", 1 /* X_OK */, AT_EMPTY_PATH);
	if (e < 0 && e != -ENOSYS)
		return because(e, NOT_EXECUTABLE, 0, 0);
	if (o->flags & PINNED && (st.stx_dev_major != o->dev_major || st.stx_dev_minor != o->dev_minor || st.stx_ino != o->ino
		|| (__s64)st.stx_size != o->size || st.stx_ctime.tv_sec != o->ctime || st.stx_ctime.tv_nsec != o->ctime_nsec))
		return because(-EACCES, NOT_PINNED, 0, 0);
	return 0;
}

/* find opens the first of the paths that leads to a command. What is there but may not be run is the better answer
 * than that nothing is there. */
static const char *find(void)
{
	struct answer first = {.why = NOT_FOUND};
	long worst = -ENOENT;
	for (const char **p = paths; *p; p++) {
		long e = open_command(*p);
		if (e >= 0)
			return *p;
		if (o->paths == 1 || (worst == -ENOENT && e != -ENOENT && e != -ENOTDIR))
			worst = e, first = answer;
	}
	answer = first;
	must(COMMAND, worst);
	return 0;
}

/* execute turns the process into the command. The launcher is told before: it sees success as the end of its socket,
 * which the exec closes, with no failed step in between. */
static void execute(const char *path)
{
	struct statx now;
	because(answer.element[0] = 0, ERRNO, 0, 0);
	sys(write, TALK, &answer, sizeof answer);
	long e = sys(execveat, here, "", args, envs, AT_EMPTY_PATH);
	if (e != -ENOENT)
		must(EXEC, e);
	/* A file with an interpreter (#!, binfmt_misc): that would be given the descriptor's name, and the descriptor is
	 * closed by then. By its path, then, when that still is the same file; only root and the user can change it. */
	must(EXEC, look(AT_FDCWD, path, 0, &now));
	if (now.stx_dev_major != st.stx_dev_major || now.stx_dev_minor != st.stx_dev_minor || now.stx_ino != st.stx_ino)
		must(EXEC, because(-EACCES, ANOTHER, 0, 0));
	answer.by_path = 1;
	sys(write, TALK, &answer, sizeof answer);
	e = sys(execve, path, args, envs);
	must(EXEC, because(e, e == -ENOENT ? INTERPRETER : ERRNO, 0, 0));
}

__attribute__((noreturn, used)) void become(void)
{
	read_order();
	close_on_exec();
	if (sys(getsid, 0) != sys(getpid, 0))
		must(SESSION, sys(setsid, 0));
	reset_signals();
	sys(umask, o->umask);
	set_limits();
	/* The last word: this process is written down, and the account still is what was decided about. */
	wrong(ORDERS, room.bytes[take(o->length, o->length + 1) - 1] != 'g', MALFORMED, 11, 0);
	give_up();
	prove();
	if (o->flags & PASSED)
		take_stdio();
	because(0, ERRNO, 0, 0);
	must(CHDIR, sys(chdir, texts[0]));
	execute(find());
	__builtin_unreachable();
}
