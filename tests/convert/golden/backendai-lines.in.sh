# what the notes of a course say
backend.ai vfolder create letters
$ backend.ai session create -t write -r cpu=2 -r mem=4g -r cuda.shares=0.5 -m letters \
    --resource-opts shmem=1g --arch aarch64 --sgroup lab cr.example.org/python:3.12
backend.ai run --rm --exec 'python fit.py --fast' -e WANDB_API_KEY=abc -r cuda.device=2 --cluster-size 2 \
    -g vision cr.example.org/torch:2 ./fit.py
./backendai-client service create cr.example.org/torch:2 models 3 --name answers --public -r mem=512 -r cpu=1
