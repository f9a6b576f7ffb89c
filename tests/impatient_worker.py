"""`nightread worker` with the drill's stub in place of an engine, and little patience with a device that hangs."""

from deploy.drill import part

if __name__ in ("__main__", "__mp_main__"):  # a worker's child imports its parent's main module first
    part.prepare()

if __name__ == "__main__":
    from producer.cli import main
    from workers import lifetime

    lifetime.STOP_SECONDS = 3.0
    main()
