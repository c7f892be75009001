/* bare - what the machine can do at all: servers with nothing around their one loop.
 *
 *   bare MODE -a ADDR -p PORT [-x PROGRAM [ARG...]]
 *
 *   MODE help   accept, read a line, write the answer, close
 *        vfork  accept, read a line, write "+Go", vfork + execve PROGRAM on the socket
 *        apart  the same in two processes: one accepts and reads the line, and hands the socket to the
 *               other (SCM_RIGHTS), which writes "+Go" and does vfork + execve
 *        src N  accept, write N zero bytes from a forked child, close (behind a TLS terminator)
 *        hold   accept and hold (likewise)
 *        line   accept, write a line, close (what a redirect leads to)
 *        dgram  datagrams: poll, vfork + execve PROGRAM on the socket, wait for its end
 *        wait   the same with what a superserver owes to each program and to its log: no other
 *               descriptors, a session and a keyring of its own, a directory, a look at the
 *               program's file, two lines to standard error
 *        splice ADDR:PORT   accept, connect there from a forked child, splice its bytes to the client
 *        relay ADDR:PORT    accept and connect there in one process, which hands both sockets to another
 *               (SCM_RIGHTS), which copies
 *
 * One epoll loop, one thread. No error handling beyond what keeps a measurement honest: it exits loudly. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum mode { HELP, VFORK, SRC, HOLD, LINE, SPLICE, DGRAM, WAIT, APART, RELAY };
static enum mode mode;
static char **prog;
static unsigned long long srcbytes;
extern char **environ;

static const char helptext[] = "tiny\r\nhelp\r\n";
static const char go[] = "+Go\r\n";
static const char line[] = "one line from a running server, as from the exec'd service\r\n";
static struct sockaddr_in upstream;

static void die(const char *w)
{
    perror(w);
    exit(1);
}

static void start(int fd)
{
    pid_t p = vfork();
    if (p == 0) {
        dup2(fd, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        execve(prog[0], prog, environ);
        _exit(127);
    }
    if (p < 0)
        die("vfork");
    close(fd);
}

/* Which descriptor hands sockets to the other process. */
static int other;

static void hand_over(int n, const int *fds)
{
    char control[CMSG_SPACE(2 * sizeof *fds)] = { 0 }, order[512] = { 0 };
    struct iovec bytes = { order, sizeof order };
    struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control };
    m.msg_controllen = CMSG_SPACE((size_t)n * sizeof *fds);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)n * sizeof *fds);
    memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof *fds);
    if (sendmsg(other, &m, MSG_NOSIGNAL) < 0)
        die("sendmsg");
    while (n > 0)
        close(fds[--n]);
}

/* False: the other process has ended. */
static int handed_over(int channel, int n, int *fds)
{
    char control[CMSG_SPACE(2 * sizeof *fds)], order[512];
    struct iovec bytes = { order, sizeof order };
    struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    ssize_t got = recvmsg(channel, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&m) : 0;
    if (!c)
        return 0;
    memcpy(fds, CMSG_DATA(c), (size_t)n * sizeof *fds);
    return 1;
}

static void starts(int channel)
{
    for (int fd; handed_over(channel, 1, &fd);) {
        send(fd, go, sizeof go - 1, MSG_NOSIGNAL);
        start(fd);
    }
}

/* Copies between each two sockets until both directions have ended; as much as two writes take, for the line of mode LINE. */
static void copies(int channel)
{
    static int peer[65536];
    static char ended[65536], b[65536];
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = channel };
    epoll_ctl(ep, EPOLL_CTL_ADD, channel, &ev);
    for (;;) {
        struct epoll_event e[64];
        int n = epoll_wait(ep, e, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = e[i].data.fd, fds[2];
            if (fd == channel) {
                if (!handed_over(channel, 2, fds))
                    return;
                for (int k = 0; k < 2; k++) {
                    peer[fds[k]] = fds[!k];
                    ended[fds[k]] = 0;
                    ev.events = EPOLLIN | EPOLLET;
                    ev.data.fd = fds[k];
                    epoll_ctl(ep, EPOLL_CTL_ADD, fds[k], &ev);
                }
                continue;
            }
            for (ssize_t r; peer[fd] && (r = recv(fd, b, sizeof b, MSG_DONTWAIT)) != 0;) {
                if (r < 0 && errno == EAGAIN)
                    goto next;
                if (r < 0 || send(peer[fd], b, (size_t)r, MSG_NOSIGNAL) < 0)
                    break;
            }
            if (!peer[fd])
                continue;
            ended[fd] = 1;
            shutdown(peer[fd], SHUT_WR);
            if (ended[peer[fd]]) {
                int to = peer[fd];
                peer[fd] = peer[to] = 0;
                close(fd);
                close(to);
            }
        next:;
        }
    }
}

/* Forks another process. The one that goes on accepts. */
static void apart(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        die("socketpair");
    pid_t p = fork();
    if (p < 0)
        die("fork");
    /* The one that starts programs, or accepts and connects, is the parent in both modes. */
    int accepts = mode == RELAY ? p != 0 : p == 0;
    if (p == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[accepts]);
    if (accepts) {
        other = pair[0];
        return;
    }
    mode == RELAY ? copies(pair[1]) : starts(pair[1]);
    exit(0);
}

/* Connects to the server, which is on this computer, and hands over both. */
static void relay(int fd)
{
    int fds[2] = { fd, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    if (fds[1] < 0 || connect(fds[1], (struct sockaddr *)&upstream, sizeof upstream))
        die("connect");
    hand_over(2, fds);
}

static void datagrams(int fd)
{
    static const char lines[] = "START service=one host= pid=12345 from=127.0.0.1 session=123456\n"
                                "EXIT service=one pid=12345 status=0 duration=0.000 session=123456\n";
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, -1) < 0)
            die("poll");
        pid_t child = vfork();
        if (child == 0) {
            dup2(fd, 0);
            dup2(fd, 1);
            dup2(fd, 2);
            if (mode == WAIT) {
                struct stat st;
                syscall(SYS_close_range, 3u, ~0u, 0u);
                setsid();
                syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, 0);
                if (chdir("/") || stat(prog[0], &st))
                    _exit(127);
            }
            execve(prog[0], prog, environ);
            _exit(127);
        }
        if (child < 0 || waitpid(child, 0, 0) < 0)
            die("vfork");
        if (mode == WAIT && write(2, lines, sizeof lines - 1) < 0)
            die("write");
    }
}

static void source(int fd)
{
    if (fork() == 0) {
        static char z[256 * 1024];
        for (unsigned long long left = srcbytes; left;) {
            ssize_t w = send(fd, z, left < sizeof z ? (size_t)left : sizeof z, MSG_NOSIGNAL);
            if (w < 0)
                _exit(1);
            left -= (unsigned long long)w;
        }
        _exit(0);
    }
    close(fd);
}

static void splicer(int fd)
{
    if (fork() == 0) {
        int up = socket(AF_INET, SOCK_STREAM, 0), p[2];
        if (connect(up, (struct sockaddr *)&upstream, sizeof upstream) || pipe(p))
            _exit(1);
        fcntl(p[0], F_SETPIPE_SZ, 1 << 20);
        for (;;) {
            ssize_t n = splice(up, 0, p[1], 0, 1 << 20, SPLICE_F_MOVE);
            if (n <= 0)
                _exit(n < 0);
            while (n > 0) {
                ssize_t w = splice(p[0], 0, fd, 0, (size_t)n, SPLICE_F_MOVE | SPLICE_F_MORE);
                if (w <= 0)
                    _exit(1);
                n -= w;
            }
        }
    }
    close(fd);
}

/* 1: done with fd; 0: it waits for input. */
static int serve(int fd)
{
    char b[512];
    if (mode == HOLD)
        return 0;
    if (mode == SRC) {
        source(fd);
        return 1;
    }
    if (mode == LINE) {
        send(fd, line, sizeof line - 1, MSG_NOSIGNAL);
        close(fd);
        return 1;
    }
    if (mode == RELAY) {
        relay(fd);
        return 1;
    }
    if (mode == SPLICE) {
        splicer(fd);
        return 1;
    }
    ssize_t n = recv(fd, b, sizeof b, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 2 || b[n - 1] != '\n')
        close(fd);
    else if (mode == APART)
        hand_over(1, &fd);
    else if (mode == HELP) {
        send(fd, helptext, sizeof helptext - 1, MSG_NOSIGNAL);
        close(fd);
    } else {
        send(fd, go, sizeof go - 1, MSG_NOSIGNAL);
        start(fd);
    }
    return 1;
}

static void drop_if_gone(int fd)
{
    char b[64];
    ssize_t r = recv(fd, b, sizeof b, MSG_DONTWAIT);
    if (r == 0 || (r < 0 && errno != EAGAIN))
        close(fd);
}

static void loop(int lfd)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = lfd };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev))
        die("epoll_ctl");
    for (;;) {
        struct epoll_event e[64];
        int n = epoll_wait(ep, e, 64, -1);
        for (int i = 0; i < n; i++) {
            if (e[i].data.fd != lfd) {
                mode == HOLD ? drop_if_gone(e[i].data.fd) : (void)serve(e[i].data.fd);
                continue;
            }
            for (int k = 0; k < 64; k++) {
                int c = accept4(lfd, 0, 0, SOCK_CLOEXEC);
                if (c < 0 && (errno == EAGAIN || errno == ECONNABORTED))
                    break;
                if (c < 0)
                    die("accept4");
                ev.events = EPOLLIN | (mode == HOLD ? 0 : EPOLLONESHOT);
                ev.data.fd = c;
                if (!serve(c) && epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev))
                    die("epoll_ctl add");
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const char *names[] = { "help", "vfork", "src", "hold", "line", "splice", "dgram", "wait", "apart", "relay" };
    const char *addr = "127.0.0.1";
    int port = 1, i = 2, m = -1;
    for (int k = 0; argc > 1 && k < 10; k++)
        if (!strcmp(argv[1], names[k]))
            m = k;
    if (m < 0)
        return 2;
    mode = (enum mode)m;
    if (mode == SRC && argc > 2)
        srcbytes = strtoull(argv[i++], 0, 0);
    if ((mode == SPLICE || mode == RELAY) && argc > 2) {
        char *colon = strchr(argv[i], ':');
        if (!colon)
            return 2;
        *colon = 0;
        upstream.sin_family = AF_INET;
        upstream.sin_port = htons((unsigned short)atoi(colon + 1));
        if (inet_pton(AF_INET, argv[i++], &upstream.sin_addr) != 1)
            return 2;
    }
    for (; i < argc; i++) {
        if (!strcmp(argv[i], "-a"))
            addr = argv[++i];
        else if (!strcmp(argv[i], "-p"))
            port = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-x")) {
            prog = argv + i + 1;
            break;
        } else
            return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct sigaction sa = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };
    if (mode != DGRAM && mode != WAIT)
        sigaction(SIGCHLD, &sa, 0);
    int lfd = socket(AF_INET, (mode == DGRAM || mode == WAIT ? SOCK_DGRAM : SOCK_STREAM | SOCK_NONBLOCK) | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
    if (inet_pton(AF_INET, addr, &sin.sin_addr) != 1)
        return 2;
    if (bind(lfd, (struct sockaddr *)&sin, sizeof sin))
        die("bind");
    if (mode == DGRAM || mode == WAIT)
        datagrams(lfd);
    if (listen(lfd, 4096))
        die("listen");
    if (mode == APART || mode == RELAY)
        apart();
    loop(lfd);
}
