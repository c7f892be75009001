/* A module of PAM. It asks for a password, which is demopass, and its argument says what it does
 * besides: `renames` gives the user another name, `leaves` leaves a process behind that has
 * everything open, `ends` ends the process that has called it, `hangs` never returns, and calls the
 * process `hangs`. */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct pam_message {
    int style;
    const char *text;
};
struct pam_response {
    char *text;
    int code;
};
struct pam_conv {
    int (*conv)(int, const struct pam_message **, struct pam_response **, void *);
    void *data;
};
enum { USER = 2, CONVERSATION = 5, SECRET = 1, SYSTEM_ERROR = 4, AUTHENTICATION_ERROR = 7 };

int pam_get_item(void *, int, const void **);
int pam_set_item(void *, int, const void *);

int pam_sm_authenticate(void *pam, int flags, int argc, const char **argv)
{
    const char *does = argc ? argv[0] : "";
    const struct pam_message message = {SECRET, "Password: "}, *messages = &message;
    const struct pam_conv *c;
    struct pam_response *answer = NULL;
    if (pam_get_item(pam, CONVERSATION, (const void **)&c) ||
        c->conv(1, &messages, &answer, c->data) || !answer || !answer->text)
        return SYSTEM_ERROR;
    if (strcmp(answer->text, "demopass"))
        return AUTHENTICATION_ERROR;
    if (!strcmp(does, "renames"))
        return pam_set_item(pam, USER, "other");
    if (!strcmp(does, "leaves") && fork() == 0) {
        setsid();
        sleep(60);
        _exit(0);
    }
    if (!strcmp(does, "ends"))
        exit(0);
    if (!strcmp(does, "hangs"))
        for (prctl(PR_SET_NAME, does);;)
            pause();
    return 0;
}

int pam_sm_setcred(void *pam, int flags, int argc, const char **argv)
{
    return 0;
}

int pam_sm_acct_mgmt(void *pam, int flags, int argc, const char **argv)
{
    return argc && !strcmp(argv[0], "renames") ? pam_set_item(pam, USER, "other") : 0;
}
