# What is published of a version: static binaries in archives, Debian packages, a software
# bill of materials (CycloneDX) and checksums. Whoever builds the same commit with the same
# version of Go gets the same bytes.
#
#   make release                      everything, in dist/release
#   make release RELEASE_ARCHS=arm64

RELEASE_VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
RELEASE_ARCHS   ?= amd64 arm64
# Below this directory.
RELEASE_DIR     ?= dist/release
# Debian wants a version that begins with a digit and grows: without a tag, the time of the commit.
DEB_VERSION      = $(shell echo '$(RELEASE_VERSION)' | sed -E 's/^[0-9a-f]{7,}(-dirty)?$$/0~$(EPOCH)-&/; s/^v//; s/^[^0-9]/0~&/; s/-/+/g')
# When the commit was made: no file is younger.
EPOCH            = $(shell git log -1 --format=%ct)
CYCLONEDX       ?= github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
RELEASE_DOCS     = LICENSE internal/notices/NOTICE README.md CHANGELOG.md SECURITY.md config.toml.example docs deploy

.PHONY: release release-check $(RELEASE_ARCHS:%=release-%)

release: release-check $(RELEASE_ARCHS:%=release-%)
	cd '$(RELEASE_DIR)' && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
	@ls -l '$(RELEASE_DIR)'

release-check:
	@case '$(RELEASE_DIR)' in dist/?*) ;; *) echo 'make release: RELEASE_DIR is $(RELEASE_DIR); it must be below dist/' >&2; exit 1 ;; esac
	rm -rf '$(RELEASE_DIR)'
	mkdir -p '$(RELEASE_DIR)'

# $(TREE) is what the package installs, $(NAME) the archive's directory.
$(RELEASE_ARCHS:%=release-%): TREE = $(RELEASE_DIR)/tree-$(@:release-%=%)
$(RELEASE_ARCHS:%=release-%): NAME = eventpusher_$(RELEASE_VERSION)_linux_$(@:release-%=%)
$(RELEASE_ARCHS:%=release-%): release-%: release-check
	install -d '$(TREE)/usr/bin' '$(TREE)/usr/lib/systemd/system' '$(TREE)/usr/share/doc/eventpusher' '$(TREE)/DEBIAN' '$(RELEASE_DIR)/$(NAME)'
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -ldflags '-s -w -X main.version=$(RELEASE_VERSION)' -o '$(TREE)/usr/bin/eventpusher' .
	$(GO) run $(CYCLONEDX) bin -licenses -json -noserial -notimestamp -version '$(RELEASE_VERSION)' -output '$(RELEASE_DIR)/$(NAME).cdx.json' '$(TREE)/usr/bin/eventpusher'
	cp -r $(RELEASE_DOCS) '$(RELEASE_DIR)/$(NAME)/'
	cp '$(TREE)/usr/bin/eventpusher' '$(RELEASE_DIR)/$(NAME)/'
	cp -r $(RELEASE_DOCS) '$(TREE)/usr/share/doc/eventpusher/'
	cp deploy/systemd/eventpusher.service '$(TREE)/usr/lib/systemd/system/'
	sed -e 's/@VERSION@/$(DEB_VERSION)/' -e 's/@ARCH@/$*/' deploy/debian/control >'$(TREE)/DEBIAN/control'
	install -m 755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm '$(TREE)/DEBIAN/'
	find '$(TREE)' '$(RELEASE_DIR)/$(NAME)' -name '*_test.go' -delete
	chmod -R u=rwX,go=rX '$(TREE)' '$(RELEASE_DIR)/$(NAME)'
	tar --directory '$(RELEASE_DIR)' --sort name --mtime '@$(EPOCH)' --owner 0 --group 0 --numeric-owner -cf - '$(NAME)' | gzip -n9 >'$(RELEASE_DIR)/$(NAME).tar.gz'
	SOURCE_DATE_EPOCH=$(EPOCH) dpkg-deb --root-owner-group -Zxz --build '$(TREE)' '$(RELEASE_DIR)/eventpusher_$(DEB_VERSION)_$*.deb' >/dev/null
	rm -r '$(TREE)' '$(RELEASE_DIR)/$(NAME)'
