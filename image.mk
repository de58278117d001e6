# The container image: a static binary built here, put on scratch by Dockerfile.
#
#   make image                          docker, podman or buildah, whichever works
#   make image IMAGE_TOOL=buildah       one of them by name
#   make image IMAGE=registry.example.org/eventpusher:1.2.3 IMAGE_ARCH=arm64
#
# Where buildah has no overlay file system (inside another container, say):
#   make image IMAGE_TOOL=buildah BUILDAH_FLAGS='--storage-driver vfs'

GO            ?= go
IMAGE_VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE         ?= eventpusher:$(IMAGE_VERSION)
IMAGE_ARCH    ?= $(shell $(GO) env GOARCH)
# Asked once, and only by those who build an image.
ifndef IMAGE_TOOL
IMAGE_TOOL = $(eval IMAGE_TOOL := $(shell for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done))$(IMAGE_TOOL)
endif
# Below the build context, which is this directory; see .dockerignore.
IMAGE_FILES   ?= dist/image
# Flags of buildah itself, such as --root; they stand before its subcommand.
BUILDAH_FLAGS ?=

image_args = --file Dockerfile --tag '$(IMAGE)' --build-arg FILES='$(IMAGE_FILES)' --build-arg VERSION='$(IMAGE_VERSION)'

.PHONY: image image-files

image: image-files
	@case '$(notdir $(IMAGE_TOOL))' in \
	buildah) set -x; $(IMAGE_TOOL) $(BUILDAH_FLAGS) build --isolation chroot --format docker --platform linux/$(IMAGE_ARCH) $(image_args) . ;; \
	docker|podman) set -x; $(IMAGE_TOOL) build --platform linux/$(IMAGE_ARCH) $(image_args) . ;; \
	'') echo 'make image: none of docker, podman and buildah works here; install one (Debian: apt-get install buildah)' >&2; exit 1 ;; \
	*) echo 'make image: IMAGE_TOOL is $(IMAGE_TOOL); it takes docker, podman or buildah' >&2; exit 1 ;; \
	esac

# What the image holds. CGO_ENABLED=0 makes the binary static; the root
# certificates are in it (golang.org/x/crypto/x509roots/fallback).
image-files:
	@case '$(IMAGE_FILES)' in dist/?*) ;; *) echo 'make image: IMAGE_FILES is $(IMAGE_FILES); it must be below dist/' >&2; exit 1 ;; esac
	rm -rf '$(IMAGE_FILES)'
	install -d -m 0755 '$(IMAGE_FILES)/root/usr/share/doc/eventpusher' '$(IMAGE_FILES)/root/etc/eventpusher' '$(IMAGE_FILES)/root/var/lib' '$(IMAGE_FILES)/volume'
	CGO_ENABLED=0 GOOS=linux GOARCH=$(IMAGE_ARCH) $(GO) build -trimpath -ldflags "-s -w -X main.version=$(IMAGE_VERSION)" -o '$(IMAGE_FILES)/root/eventpusher' .
	chmod 0755 '$(IMAGE_FILES)/root/eventpusher'
	install -m 0644 LICENSE internal/notices/NOTICE '$(IMAGE_FILES)/root/usr/share/doc/eventpusher/'
