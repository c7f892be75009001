/* The program that every measurement of dgram wait starts: static, no libc; it answers one datagram and exits. */
static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}

static char bytes[512], from[128];
static int length = sizeof from;

void _start(void)
{
    long n = sys6(45, 0, (long)bytes, sizeof bytes, 0, (long)from, (long)&length); /* recvfrom */
    if (n >= 0)
        sys6(44, 0, (long)bytes, n, 0, (long)from, length); /* sendto */
    sys6(231, 0, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}
