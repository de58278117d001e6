// Package pagetest shows the live page to a real Chromium. It has nothing but tests.
package pagetest
