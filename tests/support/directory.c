/* A module of the name service in place of SSSD's: one user, one group and one name of a port of a
 * directory. A user's name may be written in capitals, too. The directory is away where there is no
 * file DIRECTORY "/directory", and does not answer as long as there is a file DIRECTORY "/hangs". Who
 * asks for a user writes the number of its session keyring into DIRECTORY "/keyrings", if it may. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <nss.h>
#include <linux/keyctl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATUS(name) enum nss_status _nss_hesiod_##name
#define USER 54511
#define GROUP 54600
#define PORT 5411

static char *none[] = {NULL};

static enum nss_status reached(void)
{
    while (access(DIRECTORY "/hangs", F_OK) == 0)
        usleep(5000);
    return access(DIRECTORY "/directory", F_OK) == 0 ? NSS_STATUS_SUCCESS : NSS_STATUS_UNAVAIL;
}

static void tell_keyring(void)
{
    int to = open(DIRECTORY "/keyrings", O_WRONLY | O_APPEND);
    dprintf(to, "%ld\n", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
    close(to);
}

static enum nss_status user(int it_is, struct passwd *p)
{
    tell_keyring();
    enum nss_status found = reached();
    if (found != NSS_STATUS_SUCCESS || !it_is)
        return found == NSS_STATUS_SUCCESS ? NSS_STATUS_NOTFOUND : found;
    p->pw_name = "demo", p->pw_passwd = "x", p->pw_gecos = "";
    p->pw_dir = "/", p->pw_shell = "/bin/sh";
    p->pw_uid = USER, p->pw_gid = GROUP;
    return NSS_STATUS_SUCCESS;
}

static enum nss_status group(int it_is, struct group *g)
{
    enum nss_status found = reached();
    if (found != NSS_STATUS_SUCCESS || !it_is)
        return found == NSS_STATUS_SUCCESS ? NSS_STATUS_NOTFOUND : found;
    g->gr_name = "colleagues", g->gr_passwd = "x", g->gr_gid = GROUP, g->gr_mem = none;
    return NSS_STATUS_SUCCESS;
}

STATUS(getpwnam_r)(const char *n, struct passwd *p, char *b, size_t l, int *e)
{
    return user(!strcasecmp(n, "demo"), p);
}

STATUS(getpwuid_r)(uid_t uid, struct passwd *p, char *b, size_t l, int *e)
{
    return user(uid == USER, p);
}

STATUS(getgrnam_r)(const char *n, struct group *g, char *b, size_t l, int *e)
{
    return group(!strcmp(n, "colleagues"), g);
}

STATUS(getgrgid_r)(gid_t gid, struct group *g, char *b, size_t l, int *e)
{
    return group(gid == GROUP, g);
}

STATUS(getservbyname_r)(const char *n, const char *of, struct servent *s, char *b, size_t l, int *e)
{
    enum nss_status found = reached();
    if (found != NSS_STATUS_SUCCESS || strcmp(n, "demo") || strcmp(of, "tcp"))
        return found == NSS_STATUS_SUCCESS ? NSS_STATUS_NOTFOUND : found;
    s->s_name = "demo", s->s_aliases = none, s->s_proto = "tcp", s->s_port = htons(PORT);
    return NSS_STATUS_SUCCESS;
}
