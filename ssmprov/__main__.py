from ssmprov.main import main

raise SystemExit(main())
