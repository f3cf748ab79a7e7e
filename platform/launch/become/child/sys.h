/* System calls without a C library: nothing runs before become(), and there is no state but its own. A call returns
 * what the kernel does, which is minus the errno when it failed. */
#include <asm/errno.h>
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <linux/prctl.h>
#include <linux/stat.h>

typedef __u32 u32;
typedef __u64 u64;

static long call(long nr, long a, long b, long c, long d, long e)
{
#if defined __x86_64__
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "+a"(nr) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return nr;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n\tand $-16, %rsp\n\tcall become\n\thlt");
#elif defined __s390x__
	register long r1 __asm__("1") = nr, r2 __asm__("2") = a, r3 __asm__("3") = b, r4 __asm__("4") = c;
	register long r5 __asm__("5") = d, r6 __asm__("6") = e;
	__asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6) : "memory", "cc");
	return r2;
}
__asm__(".globl _start\n_start: aghi %r15, -160\n\tbrasl %r14, become\n\tj .");
#else
#error "the system calls of this machine are not known here"
#endif

#define sys(nr, ...) pick(__NR_##nr, __VA_ARGS__, 0, 0, 0, 0)
#define pick(nr, a, b, c, d, e, ...) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* receive is a read with which descriptors may come: three at most, so that there is room for one more. */
struct control {
	u64 length;
	int level, type, fds[4];
};

static long receive(int from, void *to, u64 n, int flags, struct control *c)
{
	u64 vector[] = {(u64)to, n}, message[] = {0, 0, (u64)vector, 1, (u64)c, sizeof *c, 0}; /* struct msghdr */
	return sys(recvmsg, from, message, 0x40000000 /* MSG_CMSG_CLOEXEC */ | flags);
}

/* The compiler may call these two for whatever copies and clears. */
void *memcpy(void *to, const void *from, unsigned long n)
{
	for (volatile char *t = to; n > 0; n--)
		*t++ = *(const char *)from++;
	return to;
}

void *memset(void *to, int c, unsigned long n)
{
	for (volatile char *t = to; n > 0; n--)
		*t++ = c;
	return to;
}

static unsigned long length(const char *s)
{
	unsigned long n = 0;
	while (s[n])
		n++;
	return n;
}
