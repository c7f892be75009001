/* load - closed-loop TCPMUX load generator.
 *
 *   load -h HOST -p PORT -c CLIENTS (-d SECONDS | -n CONNECTIONS) [-t THREADS] [-w WARMUP_S]
 *           [-T TIMEOUT_S] [-2] [-f] MODE
 *   MODE: help                connect, send "HELP\r\n", read to EOF (any non-empty answer counts)
 *         exec NAME EXPECT    connect, send "NAME\r\n", read to EOF; the answer must begin with
 *                             '+' and end with EXPECT
 *         plain EXPECT        connect, send nothing, read to EOF; the answer must end with EXPECT
 *         bulk NAME BYTES     one client, blocking reads: send "NAME\r\n" ("-" = nothing), read to EOF,
 *                             at least BYTES must come; reports bytes/s
 *         dgram               send a datagram, wait for its answer; after 50 ms without one send it again
 *         idle N [PER_S]      open N connections that send nothing (PER_S a second; 0 = all at once) and
 *                             hold them; prints a JSON line when open, then on stdin EOF counts how
 *                             many the server has closed
 *
 *
 * Sockets close with SO_LINGER 0, so neither side keeps TIME_WAIT and ports never run out.
 * Prints one JSON object. Latency = socket() to EOF, per connection; with -f to the first byte of the
 * service itself: in exec that after the line "+Go". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { M_HELP, M_EXEC, M_PLAIN };
static int mode, clients = 1, nthreads = 1;
static double dur = 0, warm = 0.2, timeout_s = 15;
static long maxconn = 0;
static struct sockaddr_in dst;
static char req[600];
static size_t reqlen;
/* With -2 each connection begins with this: PROXY v2, TCP over IPv4, 192.0.2.1:4660 to 192.0.2.2:1. */
static int proxy;
static int to_first; /* -f */
static const unsigned char header[28] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\14\xc0\0\2\1\xc0\0\2\2\x12\x34\0\1";
static const char *expect = "";
static size_t explen;
static unsigned long long bulkbytes;
static volatile int stopping;

static uint64_t ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct conn {
    int fd, sent;
    uint64_t t0, t1; /* t1: when the first byte of the service came, or 0 */
    size_t n;
    char first, answered, tail[256]; /* answered: the service's bytes follow */
    size_t tl;
};

struct th {
    pthread_t id;
    int nc;
    long done, errs, err_conn, err_short, err_tmo;
    uint32_t *lat; /* microseconds*10 */
    size_t nlat, cap;
    uint64_t start, end;
    int lasterr;
};

static int opensock(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct linger lg = { 1, 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
    return fd;
}

static int begin(struct th *t, struct conn *c, int ep)
{
    c->t0 = ns();
    c->t1 = 0;
    c->answered = mode != M_EXEC;
    c->n = c->tl = 0;
    c->sent = 0;
    c->first = 0;
    c->fd = opensock();
    if (c->fd < 0) {
        t->lasterr = errno;
        return -1;
    }
    if (connect(c->fd, (struct sockaddr *)&dst, sizeof dst) && errno != EINPROGRESS) {
        t->lasterr = errno;
        close(c->fd);
        c->fd = -1;
        return -1;
    }
    uint32_t want = EPOLLIN;
    if (reqlen) {
        ssize_t w = send(c->fd, req, reqlen, MSG_NOSIGNAL);
        if (w == (ssize_t)reqlen)
            c->sent = 1;
        else
            want |= EPOLLOUT;
    } else
        c->sent = 1;
    struct epoll_event ev = { .events = want, .data.ptr = c };
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev)) {
        t->lasterr = errno;
        close(c->fd);
        c->fd = -1;
        return -1;
    }
    return 0;
}

static void tailadd(struct conn *c, const char *b, size_t n)
{
    if (n >= sizeof c->tail) {
        memcpy(c->tail, b + n - sizeof c->tail, sizeof c->tail);
        c->tl = sizeof c->tail;
    } else {
        if (c->tl + n > sizeof c->tail) {
            size_t drop = c->tl + n - sizeof c->tail;
            memmove(c->tail, c->tail + drop, c->tl - drop);
            c->tl -= drop;
        }
        memcpy(c->tail + c->tl, b, n);
        c->tl += n;
    }
}

static void note_first(struct conn *c, const char *b, size_t n)
{
    if (!c->answered) {
        const char *end = memchr(b, '\n', n);
        if (!end)
            return;
        c->answered = 1;
        n -= (size_t)(end + 1 - b);
    }
    if (n && !c->t1)
        c->t1 = ns();
}

static int good(struct conn *c)
{
    if (mode == M_HELP)
        return c->n > 0;
    if (mode == M_EXEC && c->first != '+')
        return 0;
    return c->tl >= explen && !memcmp(c->tail + c->tl - explen, expect, explen);
}

static void *worker(void *arg)
{
    struct th *t = arg;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct conn *cs = calloc((size_t)t->nc, sizeof *cs);
    static __thread char buf[256 * 1024];
    int active = 0;
    uint64_t t_on = t->start + (uint64_t)(warm * 1e9), t_off = dur > 0 ? t_on + (uint64_t)(dur * 1e9) : UINT64_MAX;
    long quota = maxconn ? maxconn / nthreads : 0, begun = 0;
    for (int i = 0; i < t->nc; i++)
        cs[i].fd = -1;
    uint64_t lastscan = ns(), now = lastscan;
    for (int i = 0; i < t->nc; i++) {
        if (quota && begun >= quota)
            break;
        if (begin(t, &cs[i], ep) == 0) {
            active++;
            begun++;
        } else
            t->errs++, t->err_conn++;
    }
    while (active) {
        struct epoll_event e[128];
        int n = epoll_wait(ep, e, 128, 100);
        now = ns();
        for (int i = 0; i < n; i++) {
            struct conn *c = e[i].data.ptr;
            if (!c->sent) {
                int er = 0;
                socklen_t l = sizeof er;
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &er, &l);
                if (er == 0) {
                    ssize_t w = send(c->fd, req, reqlen, MSG_NOSIGNAL);
                    if (w == (ssize_t)reqlen) {
                        c->sent = 1;
                        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
                        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
                        continue;
                    }
                    if (w < 0 && errno == EAGAIN)
                        continue;
                    er = errno;
                }
                t->lasterr = er;
                t->err_conn++;
                goto bad;
            }
            for (;;) {
                ssize_t r = recv(c->fd, buf, sizeof buf, 0);
                if (r > 0) {
                    if (c->n == 0)
                        c->first = buf[0];
                    if (to_first && !c->t1)
                        note_first(c, buf, (size_t)r);
                    c->n += (size_t)r;
                    tailadd(c, buf, (size_t)r);
                    if ((size_t)r < sizeof buf && !(e[i].events & EPOLLRDHUP))
                        break;
                    continue;
                }
                if (r < 0 && errno == EAGAIN)
                    break;
                if (r < 0) {
                    t->lasterr = errno;
                    if (!good(c) || errno != ECONNRESET) {
                        t->err_short++;
                        goto bad;
                    }
                } else if (!good(c)) {
                    t->err_short++;
                    goto bad;
                }
                uint64_t end = ns();
                if (end >= t_on && end <= t_off) {
                    t->done++;
                    if (t->nlat == t->cap) {
                        t->cap = t->cap ? t->cap * 2 : 65536;
                        t->lat = realloc(t->lat, t->cap * sizeof *t->lat);
                    }
                    uint64_t d = ((c->t1 ? c->t1 : end) - c->t0) / 100;
                    t->lat[t->nlat++] = d > UINT32_MAX ? UINT32_MAX : (uint32_t)d;
                    t->end = end;
                }
                close(c->fd);
                c->fd = -1;
                goto next;
            }
            continue;
        bad:
            close(c->fd);
            c->fd = -1;
            if (now >= t_on)
                t->errs++;
            if (t->errs > 2000)
                stopping = 1;
        next:
            active--;
            if (now < t_off && !stopping && (!quota || begun < quota)) {
                if (begin(t, c, ep) == 0) {
                    active++;
                    begun++;
                } else {
                    t->errs++, t->err_conn++;
                    if (active == 0 && t->errs < 2000) {
                        usleep(1000);
                        if (begin(t, c, ep) == 0)
                            active++, begun++;
                    }
                }
            }
        }
        if (now - lastscan > 200000000u) {
            lastscan = now;
            for (int i = 0; i < t->nc; i++) {
                struct conn *c = &cs[i];
                if (c->fd < 0)
                    continue;
                double age = (double)(int64_t)(now - c->t0) / 1e9; /* t0 may be later than now */
                if (age > timeout_s || (now > t_off && (double)(now - t_off) / 1e9 > 3)) {
                    close(c->fd);
                    c->fd = -1;
                    active--;
                    t->errs++, t->err_tmo++;
                }
            }
        }
    }
    if (!t->end)
        t->end = now;
    return 0;
}

static char *unescape(char *s) /* "\\r" and "\\n" in arguments */
{
    char *w = s;
    for (char *r = s; *r; r++)
        if (*r == '\\' && (r[1] == 'r' || r[1] == 'n'))
            *w++ = *++r == 'r' ? '\r' : '\n';
        else
            *w++ = *r;
    *w = 0;
    return s;
}

static int cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int idle(int n, double per_s)
{
    enum { WINDOW = 512 }; /* connects in flight */
    int *fds = malloc(sizeof(int) * (size_t)n);
    struct pollfd *pf = calloc((size_t)n, sizeof *pf);
    uint64_t t0 = ns();
    int ok = 0, fail = 0, lasterr = 0, next = 0, flying = 0, ep = epoll_create1(EPOLL_CLOEXEC);
    while (next < n || flying) {
        while (next < n && flying < WINDOW && fail < 100) {
            if (per_s > 0 && (double)(ns() - t0) / 1e9 * per_s < next) {
                if (!flying)
                    usleep(500);
                break;
            }
            int i = next++;
            fds[i] = opensock();
            if (fds[i] < 0 || (connect(fds[i], (struct sockaddr *)&dst, sizeof dst) && errno != EINPROGRESS)) {
                lasterr = errno;
                fail++;
                if (fds[i] >= 0)
                    close(fds[i]);
                fds[i] = -1;
                continue;
            }
            struct epoll_event ev = { .events = EPOLLOUT | EPOLLONESHOT, .data.u32 = (uint32_t)i };
            epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev);
            flying++;
        }
        if (fail >= 100 || (double)(ns() - t0) / 1e9 > 150) {
            for (; next < n; next++)
                fds[next] = -1;
            fail += flying;
            lasterr = lasterr ? lasterr : ETIMEDOUT;
            break;
        }
        struct epoll_event e[64];
        int m = epoll_wait(ep, e, 64, flying ? 1 : 0);
        for (int k = 0; k < m; k++) {
            int i = (int)e[k].data.u32, er = 0;
            socklen_t l = sizeof er;
            getsockopt(fds[i], SOL_SOCKET, SO_ERROR, &er, &l);
            flying--;
            if (er) {
                lasterr = er;
                fail++;
                close(fds[i]);
                fds[i] = -1;
            } else
                ok++;
        }
    }
    printf("{\"open\":%d,\"fail\":%d,\"lasterr\":%d,\"secs\":%.4f}\n", ok, fail, lasterr, (double)(ns() - t0) / 1e9);
    fflush(stdout);
    char b[64];
    while (read(0, b, sizeof b) > 0)
        ;
    int m = 0, closed = 0;
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) {
            pf[m].fd = fds[i];
            pf[m++].events = POLLIN;
        }
    poll(pf, (nfds_t)m, 0);
    for (int i = 0; i < m; i++)
        if (pf[i].revents)
            closed++;
    printf("{\"closed_by_server\":%d}\n", closed);
    return 0;
}

/* Plain blocking reads of 256 KiB, as the TLS client (rust/src/tls.rs) makes them: with another reader
 * (epoll costs 12 % here) plain and TLS rows could not be compared. */
static int bulk(void)
{
    static char buf[256 * 1024];
    struct rusage r0, r1;
    getrusage(RUSAGE_SELF, &r0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err = 0;
    struct timeval tv = { 60, 0 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    unsigned long long got = 0;
    uint64_t t0 = ns();
    if (connect(fd, (struct sockaddr *)&dst, sizeof dst) || send(fd, req, reqlen, MSG_NOSIGNAL) != (ssize_t)reqlen)
        err = errno;
    while (!err) {
        ssize_t r = recv(fd, buf, sizeof buf, 0);
        if (r < 0)
            err = errno;
        if (r <= 0)
            break;
        got += (unsigned long long)r;
    }
    double s = (double)(ns() - t0) / 1e9;
    getrusage(RUSAGE_SELF, &r1);
    double cpu = (double)(r1.ru_utime.tv_sec - r0.ru_utime.tv_sec + r1.ru_stime.tv_sec - r0.ru_stime.tv_sec) +
                 (double)(r1.ru_utime.tv_usec - r0.ru_utime.tv_usec + r1.ru_stime.tv_usec - r0.ru_stime.tv_usec) / 1e6;
    int ok = got >= bulkbytes;
    printf("{\"conns\":%d,\"errors\":%d,\"bytes\":%llu,\"secs\":%.4f,\"bytes_per_s\":%.0f,\"client_cpu_s\":%.4f,\"lasterr\":%d}\n",
           ok, !ok, got, s, ok ? (double)got / s : 0, cpu, err);
    return 0;
}

static int cmp(const void *a, const void *b);

/* A datagram that is not answered is sent again after this time: xinetd throws away what came while its program ran. */
#define AGAIN 50000000u

static int dgram(void)
{
    int ep = epoll_create1(EPOLL_CLOEXEC), *fds = malloc(sizeof(int) * (size_t)clients);
    uint64_t *at = calloc((size_t)clients, sizeof *at), *sent = calloc((size_t)clients, sizeof *sent), looked = ns();
    uint64_t t_on = looked + (uint64_t)(warm * 1e9), t_off = t_on + (uint64_t)(dur * 1e9), now;
    uint32_t *lat = malloc(sizeof *lat * 4000000u);
    long done = 0, again = 0;
    for (int i = 0; i < clients; i++) {
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct epoll_event ev = { .events = EPOLLIN, .data.u32 = (uint32_t)i };
        if (connect(fds[i], (struct sockaddr *)&dst, sizeof dst) || epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev))
            return 1;
        at[i] = sent[i] = ns();
        send(fds[i], "ask", 3, 0);
    }
    while ((now = ns()) < t_off) {
        struct epoll_event e[64];
        int n = epoll_wait(ep, e, 64, 10);
        for (int k = 0; k < n; k++) {
            int i = (int)e[k].data.u32;
            char b[64];
            if (recv(fds[i], b, sizeof b, 0) < 0)
                continue;
            now = ns();
            if (now >= t_on && done < 4000000)
                lat[done++] = (uint32_t)((now - at[i]) / 100);
            at[i] = sent[i] = now;
            send(fds[i], "ask", 3, 0);
        }
        if ((now = ns()) < looked + 10000000u)
            continue;
        looked = now;
        for (int i = 0; i < clients; i++) {
            if (now < sent[i] + AGAIN)
                continue;
            again++;
            sent[i] = now;
            send(fds[i], "ask", 3, 0);
        }
    }
    qsort(lat, (size_t)done, sizeof *lat, cmp);
    printf("{\"conns\":%ld,\"again\":%ld,\"errors\":%d,\"rate\":%.2f,\"p50_us\":%.1f}\n", done, again, done == 0, (double)done / dur, done ? lat[done / 2] / 10.0 : 0);
    return 0;
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1";
    int port = 1, o;
    while ((o = getopt(argc, argv, "+h:p:c:d:n:t:w:T:2f")) != -1)
        switch (o) {
        case 'h': host = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'c': clients = atoi(optarg); break;
        case 'd': dur = atof(optarg); break;
        case 'n': maxconn = atol(optarg); break;
        case 't': nthreads = atoi(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'T': timeout_s = atof(optarg); break;
        case '2': proxy = 1; break;
        case 'f': to_first = 1; break;
        default: return 2;
        }
    argv += optind;
    argc -= optind;
    if (argc < 1)
        return 2;
    dst.sin_family = AF_INET;
    dst.sin_port = htons((unsigned short)port);
    if (inet_pton(AF_INET, host, &dst.sin_addr) != 1)
        return 2;
    if (!strcmp(argv[0], "help")) {
        mode = M_HELP;
        snprintf(req, sizeof req, "HELP\r\n");
    } else if (!strcmp(argv[0], "exec") && argc >= 3) {
        mode = M_EXEC;
        snprintf(req, sizeof req, "%s\r\n", argv[1]);
        expect = unescape(argv[2]);
    } else if (!strcmp(argv[0], "plain") && argc >= 2) {
        mode = M_PLAIN;
        expect = unescape(argv[1]);
    } else if (!strcmp(argv[0], "bulk") && argc >= 3) {
        if (strcmp(argv[1], "-"))
            snprintf(req, sizeof req, "%s\r\n", argv[1]);
        bulkbytes = strtoull(argv[2], 0, 0);
        reqlen = strlen(req);
        return bulk();
    } else if (!strcmp(argv[0], "dgram")) {
        return dgram();
    } else if (!strcmp(argv[0], "idle") && argc >= 2) {
        return idle(atoi(argv[1]), argc > 2 ? atof(argv[2]) : 0);
    } else
        return 2;
    reqlen = strlen(req);
    if (proxy) {
        memmove(req + sizeof header, req, reqlen);
        memcpy(req, header, sizeof header);
        reqlen += sizeof header;
    }
    explen = strlen(expect);
    if (maxconn && dur <= 0)
        warm = 0;
    if (!maxconn && dur <= 0)
        dur = 2;
    if (nthreads > clients)
        nthreads = clients;
    struct th *th = calloc((size_t)nthreads, sizeof *th);
    struct rusage r0, r1;
    getrusage(RUSAGE_SELF, &r0);
    uint64_t s = ns();
    for (int i = 0; i < nthreads; i++) {
        th[i].nc = clients / nthreads + (i < clients % nthreads);
        th[i].start = s;
        pthread_create(&th[i].id, 0, worker, &th[i]);
    }
    long done = 0, errs = 0, ec = 0, es = 0, et = 0;
    size_t nl = 0;
    uint64_t end = s;
    int le = 0;
    for (int i = 0; i < nthreads; i++) {
        pthread_join(th[i].id, 0);
        done += th[i].done;
        errs += th[i].errs;
        ec += th[i].err_conn;
        es += th[i].err_short;
        et += th[i].err_tmo;
        nl += th[i].nlat;
        if (th[i].end > end)
            end = th[i].end;
        if (th[i].lasterr)
            le = th[i].lasterr;
    }
    getrusage(RUSAGE_SELF, &r1);
    uint32_t *l = malloc((nl + 1) * sizeof *l);
    size_t p = 0;
    double sum = 0;
    for (int i = 0; i < nthreads; i++) {
        memcpy(l + p, th[i].lat, th[i].nlat * sizeof *l);
        p += th[i].nlat;
    }
    qsort(l, nl, sizeof *l, cmp);
    for (size_t i = 0; i < nl; i++)
        sum += l[i];
    double secs = dur > 0 ? dur : (double)(end - s) / 1e9;
    double cpu = (double)(r1.ru_utime.tv_sec - r0.ru_utime.tv_sec + r1.ru_stime.tv_sec - r0.ru_stime.tv_sec) +
                 (double)(r1.ru_utime.tv_usec - r0.ru_utime.tv_usec + r1.ru_stime.tv_usec - r0.ru_stime.tv_usec) / 1e6;
#define Q(f) (nl ? l[(size_t)((double)(nl - 1) * (f))] / 10.0 : 0)
    printf("{\"conns\":%ld,\"errors\":%ld,\"err_conn\":%ld,\"err_short\":%ld,\"err_timeout\":%ld,\"lasterr\":%d,"
           "\"secs\":%.4f,\"rate\":%.2f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
           "\"client_cpu_s\":%.4f}\n",
           done, errs, ec, es, et, le, secs, done / secs, nl ? sum / nl / 10 : 0, Q(.5), Q(.99), Q(1), cpu);
    return 0;
}
