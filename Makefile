# make, make run, make test need a Rust toolchain and a C compiler; what else is used is said below.

PREFIX     ?= /usr/local
SBINDIR    ?= $(PREFIX)/sbin
MANDIR     ?= $(PREFIX)/share/man
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
DESTDIR    ?=
CARGO      ?= cargo
INSTALL    ?= install
# Seconds for each target of `make fuzz`.
FUZZ_SECONDS ?= 30

TARGET  = $(or $(CARGO_TARGET_DIR),target)
PROGRAM = $(TARGET)/release/fived

.PHONY: all run test tools install uninstall bench fuzz

all:
	$(CARGO) build --release --locked

# On port 1 where that is allowed, else on the first free one of 1001 to 1010; for this computer alone (see etc/demo.sh).
run: all
	@etc/demo.sh run "$(PROGRAM)"

test: tools
	$(CARGO) test --locked

# Programs that tests use as clients and oracles, as COMMAND:PACKAGE. Root gets what is missing where there is apt-get; else the
# tests that want it say so and are skipped.
TOOLS = mandoc:mandoc nc:netcat-openbsd openssl:openssl ssh-keygen:openssh-client git:git perl:perl curl:curl
tools:
	@missing=; for t in $(TOOLS); do command -v $${t%:*} >/dev/null 2>&1 || missing="$$missing $${t#*:}"; done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "installing for the tests:$$missing"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; } >/dev/null \
			|| echo "apt-get failed: tests that want$$missing are skipped"; \
	else \
		echo "not installed, tests that want them are skipped:$$missing"; \
	fi

# After `make`; a build of its own only where there is none yet, so that `sudo make install` needs no Rust.
$(PROGRAM):
	$(CARGO) build --release --locked

install: $(PROGRAM)
	$(INSTALL) -d "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(MANDIR)/man5" "$(DESTDIR)$(MANDIR)/man7" "$(DESTDIR)$(MANDIR)/man8" \
		"$(DESTDIR)$(SYSCONFDIR)" "$(DESTDIR)$(UNITDIR)"
	$(INSTALL) -m 755 "$(PROGRAM)" "$(DESTDIR)$(SBINDIR)/fived"
	$(INSTALL) -m 644 man/fived.conf.5 "$(DESTDIR)$(MANDIR)/man5/fived.conf.5"
	$(INSTALL) -m 644 man/fived-session.7 "$(DESTDIR)$(MANDIR)/man7/fived-session.7"
	$(INSTALL) -m 644 man/fived.8 "$(DESTDIR)$(MANDIR)/man8/fived.8"
	[ -e "$(DESTDIR)$(SYSCONFDIR)/fived.conf" ] || $(INSTALL) -m 644 etc/fived.conf "$(DESTDIR)$(SYSCONFDIR)/fived.conf"
	sed 's|/usr/local/sbin|$(SBINDIR)|' etc/fived.service >"$(DESTDIR)$(UNITDIR)/fived.service"
	chmod 644 "$(DESTDIR)$(UNITDIR)/fived.service"
	$(INSTALL) -m 644 etc/fived.socket "$(DESTDIR)$(UNITDIR)/fived.socket"

# The configuration and /var/lib/fived stay: they are not ours.
uninstall:
	rm -f "$(DESTDIR)$(SBINDIR)/fived" "$(DESTDIR)$(MANDIR)/man5/fived.conf.5" "$(DESTDIR)$(MANDIR)/man7/fived-session.7" \
		"$(DESTDIR)$(MANDIR)/man8/fived.8" "$(DESTDIR)$(UNITDIR)/fived.service" "$(DESTDIR)$(UNITDIR)/fived.socket"

# fived beside its peers and beside what the machine can do at all.
bench: all
	benches/run

# Every target of fuzz/ for FUZZ_SECONDS. Wants the nightly toolchain (rustup toolchain install nightly), a C++ compiler and
# cargo-fuzz (cargo install cargo-fuzz).
fuzz:
	@rustup run nightly rustc --version >/dev/null 2>&1 || { echo "make fuzz wants Rust's nightly: rustup toolchain install nightly" >&2; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "make fuzz wants cargo-fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@set -e; for t in $$($(CARGO) +nightly fuzz list); do \
		echo "fuzzing $$t for $(FUZZ_SECONDS) s"; \
		$(CARGO) +nightly fuzz run $$t -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024; \
	done
